"""An image becomes RGB as it was meant: upright, eight bits, nothing see-through."""

import numpy as np
import pytest
from PIL import Image

from tasks.data import images
from tasks.data.checked import check_images, inspect_image
from tasks.data.images import ORIENTATION, image_size, read_image

RAMP = np.linspace(0, 1, 24).reshape(4, 6)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "cache"))


def marked(path, held):
    """A photo of 30×20 with a red corner, whose EXIF says how the camera was held."""
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[:8, :8, 0] = 255
    exif = Image.Exif()
    exif[ORIENTATION] = held
    Image.fromarray(pixels).save(path, exif=exif, quality=95)


@pytest.mark.parametrize(
    ("held", "corner"),
    [
        (1, (0, 0)),
        (2, (0, -1)),
        (3, (-1, -1)),
        (4, (-1, 0)),
        (5, (0, 0)),
        (6, (0, -1)),
        (8, (-1, 0)),
    ],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_photos_are_turned_upright(tmp_path, held, corner, suffix):
    path = tmp_path / f"a{suffix}"
    marked(path, held)
    size = (30, 20) if held >= 5 else (20, 30)
    for short_side in (None, 20):
        image = read_image(path, short_side)
        assert tuple(image.shape[1:]) == size == image_size(path)
        red = [(y, x) for y in (0, -1) for x in (0, -1) if image[0, y, x] > 200]
        assert red == [corner]
    assert tuple(read_image(path, upright=False).shape[1:]) == (20, 30)
    file = inspect_image(path)
    assert (file.height, file.width, file.orientation) == (20, 30, held)
    repairs = check_images(tmp_path, [path]).repairs([path.name], upright=True)
    assert repairs.total() == (held != 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_turns_nothing(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01")
    assert image_size(path) == (20, 30)
    assert not inspect_image(path).fault


DEEP = {
    "16 bits": (RAMP * 65535).astype(np.uint16),
    "12 of 16 bits": (RAMP * 4095).astype(np.uint16),
    "32 bits": (RAMP * 70_000).astype(np.int32),
    "floats of 0…1": RAMP.astype(np.float32),
    "floats of -3…5": (RAMP * 8 - 3).astype(np.float32),
}


@pytest.mark.parametrize("array", DEEP.values(), ids=DEEP)
def test_deep_grey_images_keep_their_greys(tmp_path, array):
    path = tmp_path / ("a.png" if array.dtype == np.uint16 else "a.tif")
    Image.fromarray(array).save(path)
    image = read_image(path).numpy()
    assert np.abs(image - 255 * RAMP).max() <= 1
    assert inspect_image(path).oddities == (images.DEEP,)


def test_floats_that_are_no_numbers_are_black(tmp_path):
    array = RAMP.astype(np.float32)
    array[0, 0], array[1, 1] = np.nan, np.inf
    Image.fromarray(array).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")
    assert image[0, 0, 0] == image[0, 1, 1] == 0
    assert image[0, -1, -1] == 255


def see_through(mode):
    image = Image.new("RGBA", (6, 4), (10, 20, 30, 255))
    image.putpixel((0, 0), (200, 0, 0, 0))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_lie_on_white(tmp_path, mode):
    path = tmp_path / "a.png"
    see_through(mode).save(path)
    image = read_image(path)
    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert image[0, 1, 1] < 30
    assert inspect_image(path).oddities == (images.TRANSPARENT,)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "1", "L", "P", "RGB"])
def test_what_has_no_transparent_part_is_as_converted(tmp_path, mode):
    image = Image.fromarray((RAMP * 255).astype(np.uint8)).convert("RGB").convert(mode)
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(read_image(tmp_path / "a.png"), expected)
    assert inspect_image(tmp_path / "a.png").oddities == ()


def test_colours_of_print_and_several_frames(tmp_path):
    Image.new("CMYK", (6, 4), (255, 0, 0, 0)).save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg")[:, 0, 0].tolist() == pytest.approx([0, 255, 255], abs=4)
    assert inspect_image(tmp_path / "a.jpg").oddities == (images.PRINT,)
    Image.new("LAB", (6, 4), (255, 128, 128)).save(tmp_path / "a.tif")
    assert inspect_image(tmp_path / "a.tif").oddities == (images.PRINT,)
    assert read_image(tmp_path / "a.tif")[:, 0, 0].tolist() == pytest.approx([255] * 3, abs=4)
    frames = [Image.new("L", (6, 4), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "a.gif")[0, 0, 0] == 10
    assert inspect_image(tmp_path / "a.gif").oddities == (images.FRAMES,)
