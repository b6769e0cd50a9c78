"""Every field of VOC's and VisDrone's formats, with every bad value: named, or counted."""

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bench.errors import DataError
from tasks.detection.boxes import checked
from tasks.detection.visdrone import FIELDS as DRONE_FIELDS
from tasks.detection.visdrone import read_visdrone
from tasks.detection.voc import read_voc

bad = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "bad_values.py")))
anything, outcome = bad.anything, bad.outcome


def picture(path, size=(40, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (200, 30, 30)).save(path)


# VOC


VOC = {
    "size/height": "40", "size/width": "60", "object/name": "dog", "object/difficult": "0",
    "bndbox/xmin": "11", "bndbox/ymin": "6", "bndbox/xmax": "30", "bndbox/ymax": "15",
}  # fmt: skip


def voc_xml(**fields):
    """Return an annotation of an object; a value of None leaves the field out, a tuple repeats."""

    def tag(name, key):
        value = fields.get(key, VOC[key])
        values = value if isinstance(value, tuple) else () if value is None else (value,)
        return "".join(f"<{name}>{text}</{name}>" for text in values)

    size = tag("width", "size/width") + tag("height", "size/height")
    box = "".join(tag(edge, f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax"))
    thing = tag("name", "object/name") + tag("difficult", "object/difficult")
    return (
        f"<annotation><size>{size}</size><object>{thing}<bndbox>{box}</bndbox></object>"
        "</annotation>"
    )


@pytest.fixture
def devkit(tmp_path):
    base = tmp_path / "VOC2012"
    for stem in ("a", "b"):
        picture(base / "JPEGImages" / f"{stem}.jpg")
        (base / "Annotations").mkdir(exist_ok=True)
        (base / "Annotations" / f"{stem}.xml").write_text(voc_xml())
    (base / "ImageSets" / "Main").mkdir(parents=True)
    (base / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    return tmp_path


VOC_VALUES = {**bad.TEXT, "missing": None, "twice": ("1", "1"), "element": "<b>1</b>"}


@pytest.mark.parametrize("value", VOC_VALUES.values(), ids=VOC_VALUES)
@pytest.mark.parametrize("field", VOC)
def test_every_field_of_voc_with_every_bad_value(devkit, field, value):
    assert not read_voc(devkit, "train").skipped
    file = devkit / "VOC2012" / "Annotations" / "a.xml"
    text = voc_xml(**{field: value})
    file.write_text(text)
    boxes, message = outcome(read_voc, devkit, "train")
    if boxes is not None:
        assert boxes.skipped or (field.startswith("bndbox") and value == "0.5")
        return
    assert "a.xml" in message
    assert message.isprintable()
    box = field.startswith("bndbox") and "object 1 in a.xml: `bndbox`" in message
    broken = "\x1b" in text and "cannot be read" in message
    assert f"`{field.removeprefix('object/')}`" in message or box or broken


@given(st.sampled_from(sorted(VOC)), st.text(max_size=12))
@anything
def test_any_text_in_any_field_of_voc(devkit, field, text):
    (devkit / "VOC2012" / "Annotations" / "a.xml").write_text(
        voc_xml(**{field: text}), encoding="utf-8", errors="surrogatepass"
    )
    boxes, message = outcome(read_voc, devkit, "train")
    assert boxes is not None or "a.xml" in message
    for image in boxes.images if boxes is not None else ():
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()


@given(st.binary(max_size=60))
@anything
def test_any_bytes_in_place_of_a_voc_file(devkit, content):
    (devkit / "VOC2012" / "Annotations" / "a.xml").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.xml"):
        read_voc(devkit, "train")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(devkit, encoding):
    entities = '<!ENTITY a "ha">' + "".join(
        f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    outside = '<!ENTITY o SYSTEM "file:///etc/hostname">'
    for declared, used in ((entities, "&i;"), (outside, "&o;")):
        text = f"<!DOCTYPE x [{declared}]>" + voc_xml(**{"object/name": used})
        (devkit / "VOC2012" / "Annotations" / "a.xml").write_text(text, encoding=encoding)
        with pytest.raises(DataError, match=r"a\.xml in .*(must have no DOCTYPE|cannot be read)"):
            read_voc(devkit, "train")


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "C:\\a"])
def test_lists_of_voc_that_lead_out_of_the_folder(devkit, name):
    (devkit / "VOC2012" / "ImageSets" / "Main" / "train.txt").write_text(f"a\n{name}\n")
    with pytest.raises(DataError, match=r"line 2 of train\.txt: `name`"):
        read_voc(devkit, "train")


def test_an_image_that_voc_lists_twice_is_counted(devkit):
    (devkit / "VOC2012" / "ImageSets" / "Main" / "train.txt").write_text("a 1\n\nb -1\na 1\n")
    boxes = read_voc(devkit, "train")
    assert [image.path.stem for image in boxes.images] == ["a", "b"]
    assert boxes.skipped == {"image listed twice": 1}
    (devkit / "VOC2012" / "ImageSets" / "Main" / "train.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"train\.txt in .* cannot be read"):
        read_voc(devkit, "train")


# VisDrone


LINE = "10,5,20,10,1,4,0,0"


@pytest.fixture
def drone(tmp_path):
    folder = tmp_path / "VisDrone2019-DET-train"
    (folder / "annotations").mkdir(parents=True)
    picture(folder / "images" / "a.jpg")
    (folder / "annotations" / "a.txt").write_text(f"{LINE}\n")
    return tmp_path


DRONE_VALUES = {**bad.TEXT, "missing": None}


@pytest.mark.parametrize("value", DRONE_VALUES.values(), ids=DRONE_VALUES)
@pytest.mark.parametrize("column", range(8))
def test_every_field_of_visdrone_with_every_bad_value(drone, column, value):
    assert not read_visdrone(drone, "train").skipped
    cells = LINE.split(",")
    cells[column : column + 1] = [] if value is None else [value]
    file = drone / "VisDrone2019-DET-train" / "annotations" / "a.txt"
    file.write_text(f"{LINE}\n{','.join(cells)}\n")
    field = DRONE_FIELDS[column]
    boxes, message = outcome(read_visdrone, drone, "train")
    if boxes is not None:
        assert boxes.skipped
        assert boxes.images[0].boxes.tolist()[0] == [10, 5, 30, 15]
        return
    assert "line 2 of a.txt" in message
    assert field in message or "box (=" in message
    assert message.isprintable()


@given(st.text(max_size=40))
@anything
def test_any_line_of_visdrone(drone, text):
    file = drone / "VisDrone2019-DET-train" / "annotations" / "a.txt"
    file.write_text(f"{LINE}\n{text}\n", encoding="utf-8", errors="surrogatepass")
    boxes, message = outcome(read_visdrone, drone, "train")
    assert boxes is not None or "a.txt" in message


def test_regions_of_every_class_are_counted_once(drone):
    file = drone / "VisDrone2019-DET-train" / "annotations" / "a.txt"
    file.write_text(f"{LINE}\n-20,5,40,10,0,0,0,0\n60,5,40,10,0,0,0,0\n")
    boxes = read_visdrone(drone, "train")
    assert boxes.skipped == {"box cut at the border": 1, "box outside of the image": 1}
    (image,) = boxes.images
    assert image.labels.tolist() == [3, *range(10)]
    assert image.crowd.tolist() == [False] + [True] * 10
    assert image.area.tolist() == [200] + [200] * 10


@pytest.mark.parametrize(
    ("content", "fault"), [(b"", "empty file"), (b"no", "not an image"), (None, "not there")]
)
def test_a_damaged_image_of_visdrone_is_left_out_or_refused_as_elsewhere(drone, content, fault):
    path = drone / "VisDrone2019-DET-train" / "images" / "a.jpg"
    shutil.copy(path, path.with_name("b.jpg"))
    annotation = drone / "VisDrone2019-DET-train" / "annotations" / "a.txt"
    shutil.copy(annotation, annotation.with_name("b.txt"))
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    boxes = read_visdrone(drone, "train")
    with pytest.raises(DataError, match=rf"can't be read: .*a\.jpg \({fault}\)"):
        checked({"train": boxes}, drone)
    left = checked({"train": boxes}, drone, max_skipped=1.0)[0]["train"]
    assert path not in [image.path for image in left.images]
    assert left.skipped[fault] == 1
