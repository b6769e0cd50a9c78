"""What networks see and predict, drawn and kept as records: fields, Grad-CAM, images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.analysis import receptive_field
from bench.config.cell import Cell
from bench.errors import ConfigError
from bench.hashing import file_sha256
from bench.record import Data, Picture, Record, View
from bench.run.describe import record_of
from bench.run.trained import trained
from bench.store import Kept, Store
from tasks.data.module import resized

if TYPE_CHECKING:
    from tasks.base import TaskModule
    from tasks.data.module import TaskData

METHOD = "1"
_VIEW = "view/"
"""How the names of metrics of a view begin."""
POSITIONS = 7
"""Images are enlarged until the last map has so many positions a side, as at 224 px in the papers:
on a map of two by two every network sees everything."""
BATCH = 8
EXPLAINED = 6
"""Images that Grad-CAM explains."""


def look(
    planned: Sequence[Cell],
    folder: Path,
    command: str,
    *,
    fresh: bool = False,
    images: int = 16,
    size: int | None = None,
) -> Iterator[tuple[Cell, Record]]:
    """Draw what the networks of cells see; yield each cell with its record.

    Pictures and record are artifacts of the cell's MLflow run; those of a fresh network of a cell
    that was not run, of a run of their own.

    Args:
        planned: cells of a suite; without `fresh`, those that are not done are left out.
        folder: the runs folder; see `bench.store.Store`.
        command: the command line that asked for it, for the record.
        fresh: take networks as they are before training, also where a trained one is there.
        images: images of the scored split over which the field is the mean.
        size: short side of these images in pixels; None for the cell's, or as much larger as the
            last map needs for `POSITIONS` positions a side.

    Raises:
        ValueError: no cell is done, or a number is out of its range.
    """
    if images < 1:
        raise ConfigError(f"`--images` (={images}) must be at least 1.")
    if size is not None and size < 8:
        raise ConfigError(f"`--size` (={size}) must be at least 8 pixels.")
    store = Store(folder)
    store.require_writable()
    kept = {key: run for key, run in store.kept().items() if run.done}
    if not fresh and not any(cell.hash in kept for cell in planned):
        raise ConfigError(
            "none of these cells is done; run them first, or see untrained networks with --fresh."
        )
    for cell in planned:
        run = kept.get(cell.hash)
        if fresh or run is not None:
            yield cell, see(store, cell, run, command, fresh=fresh, images=images, size=size)


def unseen(planned: Sequence[Cell], store: Store) -> list[tuple[Cell, Kept]]:
    """Return the first seed that is done of each arm, with its run, where it has no view yet."""
    kept = store.kept()
    first: dict[tuple[str, str], tuple[Cell, Kept]] = {}
    for cell in planned:
        run = kept.get(cell.hash)
        if run is not None and run.done and cell.ranked and not cell.absent:
            first.setdefault((cell.board, cell.operator), (cell, run))
    return [(cell, run) for cell, run in first.values() if not _is_seen(run)]


def _is_seen(run: Kept) -> bool:
    """Whether the trained network has a view; that of a fresh one may stand in the same run."""
    return any(name.startswith(f"{_VIEW}trained_") for name in run.metrics)


def see(
    store: Store,
    cell: Cell,
    run: Kept | None,
    command: str,
    *,
    fresh: bool = False,
    images: int = 16,
    size: int | None = None,
) -> Record:
    """Draw what the network of one cell sees and predicts; return its record, which is kept.

    Args:
        store: where runs are kept.
        cell: of a suite.
        run: of the cell; None where it was not run.
        command: as of `look`, and so are the others.
        fresh: take the network as it is before training.
        images: of the scored split.
        size: short side of these images.
    """
    from bench.config import lightning

    if run is not None and not fresh:
        module, data = trained(store, run, cell.config)
    else:
        built = lightning.build(cell.config)
        module, data = built.module, built.data
    module.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    with TemporaryDirectory() as scratch:
        view = _view(cell, module, data, fresh, images, size, Path(scratch))
        return _keep(store, run, cell, data, view, command, size, Path(scratch))


def _view(
    cell: Cell,
    module: TaskModule,
    data: TaskData,
    fresh: bool,
    images: int,
    size: int | None,
    folder: Path,
) -> View:
    """Measure and draw; the pictures are written into `folder`."""
    from bench import pictures
    from bench.analysis.beside import beside_picture

    real = data.scored_images(images, cell.input_size).to(module.device)
    features = receptive_field.last_map(module.backbone)
    enlarged = _enlarged(module, real, size)
    batches = (entering(module, batch) for batch in torch.split(enlarged, BATCH))
    field = receptive_field.receptive_field(features, batches)
    areas = receptive_field.areas(field)
    with torch.no_grad():
        map_size = features(entering(module, enlarged[:1])).shape[-2:]
    name = f"{cell.operator}, {'fresh' if fresh else 'trained'}, seed {cell.seed}"
    shown = []
    if not fresh:
        predicted = folder / "predicted.jpg"
        beside_picture(module, data, predicted)
        caption = f"The truth above, the prediction below: {name}"
        shown.append(_named(predicted, f"predicted-{cell.hash}", caption))
    drawn = folder / "field.png"
    pictures.field_picture(field, areas, drawn)
    shown.append(_named(drawn, f"erf-{cell.hash}", f"Effective receptive field of {name}"))
    explained = folder / "gradcam.png"
    spaced = torch.arange(min(EXPLAINED, len(real))) * len(real) // min(EXPLAINED, len(real))
    stage = _explain(module, data, real[spaced], explained)
    if stage is not None:
        caption = f"Grad-CAM of {name} at {stage}: where the class predicted is looked for"
        shown.append(_named(explained, f"gradcam-{cell.hash}", caption))
    return View(
        method=METHOD,
        weights="fresh" if fresh else "trained",
        images=len(real),
        input_size=(field.shape[0], field.shape[1]),
        map_size=(map_size[0], map_size[1]),
        field=areas,
        pictures=shown,
    )


def _named(file: Path, name: str, caption: str) -> Picture:
    """Name a picture by its content: what is kept under a name never changes."""
    sha256 = file_sha256(file)
    final = file.rename(file.with_name(f"{name}-{sha256[:12]}{file.suffix}"))
    return Picture(file=final.name, sha256=sha256, caption=caption)


def _enlarged(module: TaskModule, images: Tensor, short_side: int | None) -> Tensor:
    height, width = images.shape[-2:]
    if short_side is not None:
        factor = short_side / min(height, width)
        return resized(images, [round(side * factor) for side in (height, width)])
    # A larger image tells the strides: on a small one much is lost to rounding.
    try:
        probe = entering(module, resized(images[:1], [4 * height, 4 * width]))
        with torch.no_grad():
            positions = receptive_field.last_map(module.backbone)(probe).shape[-2:]
    except Exception:  # made for one size
        return images
    strides = [round(a / b) for a, b in zip(probe.shape[-2:], positions, strict=True)]
    if min(height / strides[0], width / strides[1]) > POSITIONS - 1:
        return images
    factor = POSITIONS / min(a / b for a, b in zip((height, width), strides, strict=True))
    return resized(
        images,
        [
            math.ceil(side * factor / stride - 1e-9) * stride
            for side, stride in zip((height, width), strides, strict=True)
        ],
    )


def entering(module: TaskModule, images: Tensor) -> Tensor:
    """Return what a task hands to its backbone for images in 0…1: normalised, perhaps padded."""
    caught: list[Tensor] = []
    handle = module.backbone.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    try:
        module.predict(images)
    finally:
        handle.remove()
    return caught[0].detach()


def _explain(module: TaskModule, data: TaskData, images: Tensor, path: Path) -> str | None:
    """Draw Grad-CAM of a classifier; return the name of the stage that it is taken at."""
    from bench import pictures
    from bench.analysis.gradcam import deepest_stage, gradcam
    from tasks import Classification

    if not isinstance(module, Classification):
        return None
    stage = deepest_stage(module.backbone, images.shape[-2:])
    best = module.predict(images).max(dim=1)
    heat = gradcam(module.backbone, entering(module, images), best.indices, stage)
    titles = [
        f"{data.class_names[label]} {score:.2f}"
        for score, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
    pictures.overlay_picture(images.cpu(), heat, titles, path)
    return stage


def _keep(
    store: Store,
    run: Kept | None,
    cell: Cell,
    data: TaskData,
    view: View,
    command: str,
    size: int | None,
    folder: Path,
) -> Record:
    run_id = (
        run.run_id
        if run is not None
        # without the cell's tag: this run does not make the cell a started one
        else store.begin(
            cell.suite, f"view · {cell.title}", {**cell.tags(), "view": "fresh"}, cell.config
        )
    )
    options = f"--images {view.images}"
    options += "" if size is None else f" --size {size}"
    options += " --fresh" if view.weights == "fresh" else ""
    record = record_of(
        cell,
        command=command,
        reproduce=f"convboard erf {cell.words} --only cell={cell.hash} {options}",
        run_id=run_id,
        kind="view",
        data=Data.model_validate(data.describe()),
        view=view,
    )
    for picture in view.pictures:
        store.keep(run_id, folder / picture.file, "records")
    store.keep(run_id, record.save(folder), "records")
    weights = view.weights
    areas = {f"{_VIEW}{weights}_area_{area.share * 100:.0f}": area.area for area in view.field}
    store.metrics(run_id, areas)
    if run is None:
        store.end(run_id)
    return record
