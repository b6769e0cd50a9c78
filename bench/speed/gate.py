"""The gate: the form that is timed must compute what the fp32 training form computes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

#: dtype of the timed form → largest allowed ‖timed − reference‖ / ‖reference‖. In float32 a
#: fused form differs by rounding alone (1e-6…1e-4 through a network); the half types add their
#: own rounding (2⁻⁸ or 2⁻¹¹ an operation) which builds up over a network's depth.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}

#: The same for gradients, in the 2-norm: where a value lies within rounding of the kink of a ReLU
#: or of a maximum, a single element of a gradient may be all wrong; many of them may not. Measured
#: over five networks: up to 8e-5, 0.07 and 0.3 (networks with ReLU lie far above the others).
GRADIENT_TOLERANCE = {"float32": 1e-3, "float16": 1e-1, "bfloat16": 4e-1}


def tolerance(dtype: str, *, gradients: bool = False) -> float:
    """Return the largest relative error of outputs, or of gradients, that passes.

    Example:
        >>> tolerance("float32"), tolerance("bfloat16", gradients=True)
        (0.001, 0.4)
    """
    return (GRADIENT_TOLERANCE if gradients else TOLERANCE)[dtype]


class GateError(Exception):
    """The timed form is not equal to the reference; `error` is the relative error, if known."""

    def __init__(self, why: str, error: float | None = None) -> None:
        super().__init__(why)
        self.error = error


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Make a freshly initialised model one that a comparison of forms can fail on; in place.

    At initialisation norms are the identity, layer scales are 1e-6 and GRN is off, so that a
    wrong fused form would pass. Every parameter and running statistic that still is one constant
    is drawn anew: zeros from N(0, 0.1²), anything else from U(0.5, 1.5). Others stay.

    Example:
        >>> norm = randomise(nn.BatchNorm2d(4))
        >>> bool((norm.running_var != 1).all() and (norm.bias != 0).all())
        True
    """
    generator = torch.Generator().manual_seed(seed)
    running = {
        name: tensor for name, tensor in model.named_buffers() if name.split(".")[-1] in _RUNNING
    }
    for tensor in [*model.parameters(), *running.values()]:
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        flat = tensor.reshape(-1)
        if not bool((flat == flat[0]).all()):
            continue
        if float(flat[0]) == 0:
            new = 0.1 * torch.randn(tensor.shape, generator=generator)
        else:
            new = 0.5 + torch.rand(tensor.shape, generator=generator)
        tensor.copy_(new.to(tensor.dtype))
    return model


_RUNNING = ("running_mean", "running_var")


def snapshot(output: Any) -> dict[str, Tensor]:
    """Return the tensors in an output by their place in it, as copies on the CPU.

    Args:
        output: a tensor, or lists, tuples and dicts of them, however deep.

    Raises:
        TypeError: for anything else.

    Example:
        >>> sorted(snapshot({"a": torch.ones(1), "b": [torch.ones(1)]}))
        ['output.a', 'output.b.0']
    """
    return {place: _copy(value.detach().cpu()) for place, value in tensors("output", output)}


def _copy(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values.clone()


def tensors(place: str, output: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in an output in their order, with their places below `place`."""
    if isinstance(output, Tensor):
        yield place, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors(f"{place}.{key}", value)
    elif isinstance(output, Sequence) and not isinstance(output, str):
        for index, value in enumerate(output):
            yield from tensors(f"{place}.{index}", value)
    else:
        raise TypeError(
            f"`{place}` (a {type(output).__name__}) must be a tensor, or a list, tuple or dict "
            "of tensors, to be compared."
        )


def compare(
    timed: Mapping[str, Tensor],
    reference: Mapping[str, Tensor],
    dtype: str,
    *,
    gradients: bool = False,
) -> float:
    """Return the largest relative error ‖timed − reference‖ / ‖reference‖ of any tensor.

    Args:
        timed: snapshot of the output of the timed form.
        reference: snapshot of the output of the fp32 training form on the same inputs.
        dtype: dtype of the timed form; it sets what is allowed.
        gradients: they are of a training step; the norm is the 2-norm then, else the largest
            element.

    Raises:
        GateError: where the error is above the tolerance, or the outputs cannot be compared.

    Example:
        >>> ones = {"output": torch.ones(2)}
        >>> compare(ones, ones, "float32")
        0.0
    """
    if timed.keys() != reference.keys():
        raise GateError(
            f"the timed form returns {sorted(timed)}, the training form {sorted(reference)}."
        )
    worst, order = 0.0, 2 if gradients else math.inf
    for place, wanted in reference.items():
        got = timed[place]
        if got.shape != wanted.shape:
            raise GateError(
                f"`{place}` is {tuple(got.shape)}, in the training form {tuple(wanted.shape)}."
            )
        worst = max(worst, _relative_error(place, got, wanted, order))
    allowed = tolerance(dtype, gradients=gradients)
    if worst > allowed:
        raise GateError(
            f"relative error {worst:.2g} against the fp32 training form; "
            f"{dtype} allows {allowed:g}.",
            worst,
        )
    return worst


def _relative_error(place: str, got: Tensor, wanted: Tensor, order: float) -> float:
    if wanted.numel() == 0:
        return 0.0
    if not wanted.is_floating_point():
        if not torch.equal(got, wanted):
            raise GateError(f"`{place}` holds other whole numbers than in the training form.")
        return 0.0
    if not bool(wanted.isfinite().all()):
        raise GateError(f"`{place}` of the training form is not finite: nothing to compare with.")
    if not bool(got.isfinite().all()):
        raise GateError(f"`{place}` of the timed form is not finite.")
    scale = float(torch.linalg.vector_norm(wanted, order))
    if scale == 0:
        raise GateError(f"`{place}` of the training form is all zero: the comparison is void.")
    return float(torch.linalg.vector_norm(got - wanted, order)) / scale
