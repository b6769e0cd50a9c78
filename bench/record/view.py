"""What a network sees and predicts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.record.parts import Part


class FieldArea(Part):
    """The smallest centred rectangle, of the image's aspect ratio, with a share of the field."""

    share: float = Field(gt=0, le=1, description="of the effective receptive field")
    area: float = Field(gt=0, le=1, description="fraction of the image's area")
    height_px: float
    width_px: float


class Picture(Part):
    """A picture of a view."""

    file: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.(png|jpg)$",
        description="name of the .png or .jpg file beside the record",
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    caption: str


class View(Part):
    """What a network sees: its effective receptive field; pictures of it and of predictions."""

    method: str = Field(description="version of the method, e.g. '1'")
    weights: Literal["trained", "fresh"]
    images: int = Field(ge=1, description="images of the scored split over which it is the mean")
    input_size: tuple[int, int] = Field(description="height and width of those images")
    map_size: tuple[int, int] = Field(description="height and width of the last map")
    field: list[FieldArea] = Field(description="effective receptive field, by share")
    pictures: list[Picture]
