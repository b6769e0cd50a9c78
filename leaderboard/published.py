"""Published figures: what papers say of their networks, kept apart from what was measured here.

A file `leaderboard/published/<paper>.yaml` is a list of figures, read with a safe loader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from bench.errors import UserError

FOLDER = Path(__file__).parent / "published"


class Figure(BaseModel):
    """One published number with its source.

    Example:
        >>> figure = Figure(
        ...     figure="SW-T", metric="top1", value=83.4, unit="%", network="shiftwise_t",
        ...     operator="shift", task="classification", data="ImageNet-1k",
        ...     setting="300 epochs, 224 px", source="arXiv 2401.12736, table 2",
        ... )
        >>> figure.value, figure.without_operator
        (83.4, None)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    figure: str
    """What the source calls it, e.g. 'ParC-ConvNeXt-XT' or 'SW-T, Cascade Mask R-CNN'."""
    metric: str
    """e.g. top1, box_ap, mask_ap, miou_ss, miou_ms, params, macs, images_per_second."""
    value: float
    unit: str
    """e.g. '%', 'M', 'G', 'images/s'."""
    network: str
    """Name of the network here, e.g. 'unireplknet_t', or the host, e.g. 'resnet50'."""
    operator: str | None = None
    """Registered name of the operator, if the figure is about one."""
    without_operator: float | None = None
    """What the same source gives for the same network without the operator."""
    task: Literal["classification", "detection", "segmentation", "pose", "cost", "speed"]
    data: str | None = None
    """The data set, e.g. 'ImageNet-1k', 'COCO val2017', 'ADE20K'."""
    setting: str
    """Schedule, detector, resolution, hardware: what one must know to compare."""
    source: str
    """Paper and table, README or third party; addresses and arXiv papers are links."""


def load(folder: Path = FOLDER) -> list[Figure]:
    """Read every figure of the folder, in the order of file names and of the files.

    Raises:
        ValueError: a file is not a list of figures; it names the file, the figure and the field.
    """
    figures: list[Figure] = []
    for path in sorted(folder.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, list):
            raise UserError(f"{path.name} must be a list of published figures.")
        for index, item in enumerate(content):
            try:
                figures.append(Figure.model_validate(item))
            except ValidationError as error:
                faults = "; ".join(
                    f"`{'.'.join(map(str, e['loc'])) or 'figure'}`: {e['msg']}"
                    for e in error.errors()
                )
                raise UserError(
                    f"figure {index + 1} of {path.name} is not as it should be: {faults}"
                ) from None
    return figures
