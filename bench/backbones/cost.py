"""What a model costs: MACs by the operators' formulas, checked by a counter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bench.backbones.probe import blank_forward
from bench.operators.base import Operator


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts by torch's formulas, and notes what multiplies and adds without having one.

    torch's own FlopCounterMode does the same per module, but its tracker fails on models that
    call a module on a view of a parameter.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.unknown: dict[str, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[Any],
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out, packet = func(*args, **kwargs), func._overloadpacket
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **kwargs, out_val=out)
        elif func.namespace not in ("aten", "prims", "prim") or "fft" in packet.__name__:
            name = f"{func.namespace}.{packet.__name__}"
            self.unknown[name] = self.unknown.get(name, 0) + 1
        return out


def macs(model: nn.Module, input_size: tuple[int, int] = (224, 224)) -> tuple[int, str, str]:
    """Count the multiply-accumulates of one forward pass on one image.

    Operators count by their own formula, `Operator.macs`; everything else by torch's counter
    (convolutions, matrix products, attention). Inside the operators both count, and are
    compared. Norms, activations, biases and resampling are not counted.

    Args:
        model: any model that takes (N, C, H, W).
        input_size: height and width of the image, in pixels.

    Returns:
        The MACs, a status and a note. The status is "ok" where counter and formulas agree, and
        "incomplete" where they could not be compared in full (an FFT, a kernel of someone's own)
        or differ; the note then says why.

    Example:
        >>> import timm
        >>> macs(timm.create_model("resnet18"), (224, 224))
        (1814073344, 'ok', '')
    """
    counter = _Counter()
    formula, counted = 0, 0
    before: list[int] = []
    differing: dict[str, tuple[int, int]] = {}

    def starts(op: nn.Module, args: tuple[Tensor, ...]) -> None:
        before.append(counter.flops)

    def ends(op: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal formula, counted
        assert isinstance(op, Operator)
        flops = counter.flops - before.pop()
        if before:  # an operator inside an operator is part of the outer one's formula
            return
        by_formula = op.macs(args[0].shape[-2], args[0].shape[-1])
        formula, counted = formula + by_formula, counted + flops
        if 2 * by_formula != flops:
            differing[op.name] = (by_formula, flops // 2)

    handles = []
    for module in model.modules():
        if isinstance(module, Operator):
            handles.append(module.register_forward_pre_hook(starts))
            handles.append(module.register_forward_hook(ends))
    try:
        # The mathematical form of attention is matrix products, which the counter knows.
        with sdpa_kernel(SDPBackend.MATH), counter:
            blank_forward(model, input_size)
    finally:
        for handle in handles:
            handle.remove()
    total = (counter.flops - counted) // 2 + formula
    notes = [f"{name} ran {n} times, unknown to the counter" for name, n in counter.unknown.items()]
    notes += [
        f"{name}: {by_formula} MACs by formula, {by_counter} by counter"
        for name, (by_formula, by_counter) in differing.items()
    ]
    return total, "incomplete" if notes else "ok", "; ".join(notes)
