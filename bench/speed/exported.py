"""Engines beside torch: the timed form exported to ONNX, run by ONNX Runtime or by OpenVINO.

Input and outputs lie in memory that is bound once, so that an iteration is the engine's run alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.errors import UserError
from bench.failures import device_lost, out_of_memory
from bench.speed.gate import tensors

Run = Callable[[], object]
"""One run of an engine, which reads what is bound as input and fills what is bound as outputs."""


def iteration(timed: nn.Module, x: Tensor, engine: str, threads: int) -> Callable[[], Any]:
    """Return one run of the exported form on an input; it returns what the form returns.

    Args:
        timed: the form, on the CPU, in float32.
        x: its input; the exported form takes no other size.
        engine: a key of ENGINES.
        threads: of the engine.

    Raises:
        UserError: the engine is not installed, or the form cannot be exported or loaded.

    Example:
        >>> form = nn.Conv2d(3, 4, 3).eval()
        >>> iteration(form, torch.zeros(1, 3, 8, 8), "onnxruntime", 1)().shape
        torch.Size([1, 4, 6, 6])
    """
    preload(engine)
    try:
        return loaded(onnx_file(timed, x), timed, x, engine, threads)
    except Exception as error:
        if out_of_memory(error) or device_lost(error):
            raise
        raise UserError(
            f"`engine` (={engine!r}) must be able to run the network: "
            f"{type(error).__name__}: {error}"
        ) from error


def loaded(
    model: bytes, timed: nn.Module, x: Tensor, engine: str, threads: int
) -> Callable[[], Any]:
    """Return one run of an ONNX file on an input; it returns what the form returns.

    Args:
        model: the file, as `onnx_file` makes it.
        timed: the form that it was made of; it says what is returned.
        x: the input.
        engine: a key of ENGINES.
        threads: of the engine.
    """
    with torch.inference_mode(False), torch.no_grad():
        output = _unfilled(timed(x))
        run = ENGINES[engine](model, x, [value for _, value in tensors("", output)], threads)

    def step() -> Any:
        run()
        return output

    return step


def preload(engine: str) -> None:
    """Import what an engine needs; UserError where it is not installed."""
    try:
        import onnxscript  # noqa: F401

        if engine == "onnxruntime":
            import onnxruntime  # noqa: F401
        else:
            import openvino  # noqa: F401
    except ImportError as error:
        extra = "onnx" if engine == "onnxruntime" else engine
        raise UserError(
            f"`engine` (={engine!r}) must be installed: pip install 'convboard[{extra}]' ({error})."
        ) from None


def _unfilled(output: Any) -> Any:
    """Return an output of the same structure whose numbers are still to come: NaN, or zeros."""
    if isinstance(output, Tensor):
        fill = float("nan") if output.is_floating_point() else 0
        return torch.full(output.shape, fill, dtype=output.dtype)
    if isinstance(output, Mapping):
        return {key: _unfilled(value) for key, value in output.items()}
    return [_unfilled(value) for value in output]


def onnx_file(timed: nn.Module, x: Tensor) -> bytes:
    """Return the form as an ONNX file for inputs of one size."""
    with torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(timed, (x,), dynamo=True, verbose=False)
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _onnxruntime(model: bytes, x: Tensor, outputs: Sequence[Tensor], threads: int) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # else the threads of one arm would spin on while the next one is timed
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()

    def place(of: Any, values: Tensor) -> tuple[Any, ...]:
        return of.name, "cpu", 0, values.numpy().dtype, list(values.shape), values.data_ptr()

    (entry,) = session.get_inputs()
    binding.bind_input(*place(entry, x))
    for of, values in zip(session.get_outputs(), outputs, strict=True):
        binding.bind_output(*place(of, values))
    return partial(session.run_with_iobinding, binding)


def _openvino(model: bytes, x: Tensor, outputs: Sequence[Tensor], threads: int) -> Run:
    import openvino

    core = openvino.Core()
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16, where the CPU has it
        "CPU_DENORMALS_OPTIMIZATION": True,
    }
    request = core.compile_model(core.read_model(model), "CPU", config).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x.numpy(), shared_memory=True))
    for index, values in enumerate(outputs):
        request.set_output_tensor(index, openvino.Tensor(values.numpy(), shared_memory=True))
    return partial(request.infer, share_outputs=True)


ENGINES: dict[str, Callable[[bytes, Tensor, Sequence[Tensor], int], Run]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""Engine → what loads an ONNX file and binds its input and outputs."""
