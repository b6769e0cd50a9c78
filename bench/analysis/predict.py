"""A finished cell's network on images of one's own, drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import ConfigError
from bench.run.trained import alone
from bench.store import Kept
from bench.store.reader import Reader

if TYPE_CHECKING:
    from torch import Tensor

    from bench.analysis.draw import Drawn
    from tasks.base import TaskModule
    from tasks.data.module import TaskData


def predict(
    store: Reader, run: Kept, images: Sequence[Path], out: Path, threshold: float = 0.3
) -> Iterator[tuple[Path, str]]:
    """Draw what a finished cell predicts for images; yield each PNG file with its words.

    An image is resized as the images are on which the cell was scored; what is found is drawn on
    the original. The cell's data need not be there. The first image is read before the network is
    built. One of a folder that cannot be read is left out, and yielded with the words for it.

    Args:
        store: where runs are kept.
        run: of the cell.
        images: paths of image files, and of folders that hold some, where hidden ones and those
            in `out` are left out.
        out: folder of the pictures, made where it is not there; `NAME-predicted.png` each.
        threshold: least score of a detection or figure, in [0, 1].

    Raises:
        ValueError: an unfinished cell, a file that is no image, a bad threshold.
    """
    from torchvision.transforms.v2.functional import to_pil_image

    if not 0 <= threshold <= 1:
        raise ConfigError(f"`--score` (={threshold}) must be in [0, 1].")
    paths = _files(images, out)
    if paths[0] in images:
        _read(paths[0])
    network = alone(store, run)
    out.mkdir(parents=True, exist_ok=True)
    taken: set[Path] = set()
    for path in paths:
        try:
            image = _read(path)
        except ConfigError as error:
            if path in images:
                raise
            yield path, f"left out: {error}"
            continue
        drawn = draw(network.module, network.data, network.class_names, image, threshold)
        target = _free(out, path.stem, taken)
        to_pil_image(drawn.picture).save(target)
        yield target, drawn.words


def draw(
    module: TaskModule,
    data: TaskData,
    names: Sequence[str],
    image: Tensor,
    threshold: float,
    *,
    canvas: Tensor | None = None,
    most: int | None = None,
) -> Drawn:
    """Predict one image, uint8 (3, H, W), and draw what was found on it.

    Args:
        module: the network.
        data: its data: how an image is made ready.
        names: of the classes.
        image: what is predicted.
        threshold: least score of a detection or figure.
        canvas: the image in another size, to draw on; None for the image itself.
        most: detections or figures at most, the surest; None for all.
    """
    from bench.analysis import draw as drawing
    from tasks import Classification, Detection, Pose, Segmentation

    seen = data.as_scored(image).to(module.device)
    size = data.scored_size(image)
    canvas = image if canvas is None else canvas
    if isinstance(module, Detection):
        (found,) = module.predict(seen[None], sizes=[size])
        return drawing.detections(canvas, found, size, names, threshold, most)
    if isinstance(module, Segmentation):
        (mask,) = module.predict(seen[None], size=canvas.shape[-2:])
        return drawing.labels(canvas, mask, names)
    if isinstance(module, Pose):
        (found,) = module.predict(seen[None])
        return drawing.figures(canvas, found, size, module.skeleton, threshold, most)
    if isinstance(module, Classification):
        (probabilities,) = module.predict(seen[None])
        return drawing.classes(canvas, probabilities, names)
    raise ConfigError(f"`cell`: there is no drawing of what a {type(module).__name__} predicts.")


def _files(images: Sequence[Path], out: Path) -> list[Path]:
    """Return the image files that are named, those of a folder in the order of their names."""
    from tasks.data.listing import visible_images

    drawn = out.resolve()
    paths: list[Path] = []
    for path in images:
        if path.is_dir():
            inside = visible_images(path)
            if not inside:
                raise ConfigError(f"`image` (={str(path)!r}): there is no image in the folder.")
            # pictures of another time are in `out` itself
            named = [file for file in inside if file.parent.resolve() != drawn]
            if not named:
                raise ConfigError(f"`--out` (={str(out)!r}) must not be the folder of the images.")
            paths += named
        else:
            paths.append(path)
    return paths


def _read(path: Path) -> Tensor:
    from PIL import Image

    from tasks.data.images import read_image

    if not path.is_file():
        raise ConfigError(f"`image` (={str(path)!r}): there is no such file.")
    try:
        return read_image(path)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ConfigError(f"`image` (={str(path)!r}) cannot be read: {error}") from None


def _free(out: Path, stem: str, taken: set[Path]) -> Path:
    """Return a name for a picture: two images of one name must not share it."""
    number = 1
    path = out / f"{stem}-predicted.png"
    while path in taken:
        number += 1
        path = out / f"{stem}-predicted-{number}.png"
    taken.add(path)
    return path
