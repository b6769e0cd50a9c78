"""A finished cell's network in a form of its own: written, compared with the trained one, timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.backbones import fuse
from bench.config.cell import input_size
from bench.errors import Failure, UserError
from bench.failures import out_of_memory
from bench.run.network_file import About, load, save
from bench.run.trained import Alone, alone
from bench.speed import exported
from bench.speed.gate import GateError, compare, snapshot
from bench.store import Kept
from bench.store.reader import Reader

Format = Literal["safetensors", "onnx", "torch_export"]
SUFFIX: dict[Format, str] = {
    "safetensors": ".safetensors",
    "onnx": ".onnx",
    "torch_export": ".pt2",
}
TURNS = 10


@dataclass(frozen=True)
class Exported:
    """A file, and how what it holds compares with the trained network on one image.

    Attributes:
        path: the file.
        error: largest relative error of its outputs.
        trained_ms: median time of the training form, batch 1.
        exported_ms: the same of what the file holds.
        maps: whether it ends before boxes, labels or poses are chosen.
    """

    path: Path
    error: float
    trained_ms: float
    exported_ms: float
    maps: bool

    @property
    def words(self) -> str:
        """What was written, in a line."""
        what = ", the maps before boxes, labels or poses are chosen" if self.maps else ""
        return (
            f"{self.path}{what}: differs from the trained network by {self.error:.1g} at most; "
            f"{self.exported_ms:.1f} ms an image, the trained form {self.trained_ms:.1f} ms"
        )


class Maps(nn.Module):
    """What a network computes before it chooses boxes or labels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        """Map images (N, 3, H, W) in 0…1 to maps."""
        network: Any = self.network
        return network.compared(images)


def export_cell(
    store: Reader, run: Kept, formats: Sequence[Format], folder: Path, name: str
) -> list[Exported]:
    """Write a finished cell's network; its data need not be there.

    - safetensors: two files, as trained and fused, which `bench.run.network_file.load` reads.
    - onnx: the fused form, for images of the cell's size, batch 1; needs `convboard[onnx]`.
    - torch_export: the same, as torch.export.load reads it.

    Args:
        store: where runs are kept.
        run: of the cell.
        formats: what is written.
        folder: where to.
        name: of the files, without an ending.

    Raises:
        UserError: the cell is not done, or the form cannot be exported.
        Failure: what was written does not compute what was trained.
    """
    network = alone(store, run)
    whole = network.module.inference_module()
    fused = fuse(whole)
    height, width = input_size(network.config)
    x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for form in formats:
        path = folder / f"{name}{SUFFIX[form]}"
        if form == "safetensors":
            made += _safetensors(network, whole, fused, x, path)
        else:
            made.append(_program(form, whole, fused, x, path))
    return made


def _safetensors(
    network: Alone, whole: nn.Module, fused: nn.Module, x: Tensor, path: Path
) -> list[Exported]:
    model, names = network.config["model"], network.class_names
    made = []
    for one, to, is_fused in (
        (whole, path, False),
        (fused, path.with_name(f"{path.stem}-fused{path.suffix}"), True),
    ):
        with _proved(to):
            save(one, About(model, names, (x.shape[-2], x.shape[-1]), is_fused), to)
            made.append(_checked(to, whole, partial(_seen(load(to)[0]), x), x))
    return made


def _program(form: Format, whole: nn.Module, fused: nn.Module, x: Tensor, path: Path) -> Exported:
    """Export the fused form; run what was written, not what it was made of."""
    if form == "onnx":
        exported.preload("onnxruntime")
    seen = _seen(fused)
    try:
        if form == "onnx":
            written = exported.onnx_file(seen, x)
            threads = torch.get_num_threads()
            with _proved(path):
                path.write_bytes(written)
                run = exported.loaded(path.read_bytes(), seen, x, "onnxruntime", threads)
        else:
            with torch.no_grad():
                traced = torch.export.export(seen, (x,))
            with _proved(path):
                torch.export.save(traced, path)
                run = partial(torch.export.load(path).module(), x)
    except Exception as error:
        if out_of_memory(error) or isinstance(error, OSError):
            raise
        words, *_ = str(error).strip().splitlines() or [""]
        raise UserError(
            f"`--format` (={form!r}): the network cannot be exported so: "
            f"{type(error).__name__}: {words}"
        ) from error
    with _proved(path):
        return _checked(path, whole, run, x)


@contextmanager
def _proved(path: Path) -> Iterator[None]:
    """Leave no file behind of which it is not proved that it computes what was trained."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _seen(network: nn.Module) -> nn.Module:
    """Return what is compared of a network: its outputs, or its maps where it chooses then."""
    return Maps(network).eval() if callable(getattr(network, "compared", None)) else network


def _checked(path: Path, whole: nn.Module, run: Callable[[], Any], x: Tensor) -> Exported:
    trained = _seen(whole)
    with torch.no_grad():
        wanted = snapshot(trained(x))
        try:
            error = compare(snapshot(run()), wanted, "float32")
        except GateError as fault:
            raise Failure(f"{path.name} does not compute what was trained: {fault}") from None
        trained_ms, exported_ms = _ms(lambda: trained(x)), _ms(run)
    return Exported(path, error, trained_ms, exported_ms, isinstance(trained, Maps))


def _ms(run: Callable[[], Any]) -> float:
    """Return the median time of a few runs, in ms."""
    times = []
    for _ in range(TURNS + 2):
        before = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - before))
    return median(times[2:])
