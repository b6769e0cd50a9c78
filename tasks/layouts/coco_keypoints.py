"""COCO's files of key points: they lie as its boxes do, and are learnt where `--task pose` asks.

root/annotations/person_keypoints_<split><year>.json    beside root/<split><year>/, root/images/…
root/<split>/_annotations.coco.json                     among the images, as Roboflow exports them
root/….json, root/annotations/….json                    any names, with `keypoints` in a category
"""

from __future__ import annotations

from pathlib import Path

from tasks.layouts.coco import contents_of, files_of, left_out, sizes_in
from tasks.layouts.layout import Layout, after_draw, data_of, scoring

LOOKED_FOR = (
    "pose: COCO's JSON of key points (annotations/person_keypoints_train2017.json, or a JSON file "
    "with `keypoints` in one of its categories)"
)


def find(folder: Path) -> Layout | None:
    """Recognise COCO's files, where categories have key points; the same ones, if several do."""
    files = files_of(folder, "person_keypoints")
    contents = None if files is None else contents_of(files)
    if files is None or contents is None:
        return None
    train = contents["train"]
    names = [c.get("keypoints") for c in train["categories"] if isinstance(c, dict)]
    posed = [points for points in names if isinstance(points, list) and points]
    if not posed or any(points != posed[0] for points in posed):
        return None
    counts = {split: len(content["images"]) for split, content in contents.items()}
    return Layout(
        "pose",
        files.words,
        folder,
        data_of("pose", "coco", folder, **files.names, **scoring(counts)),
        tuple(map(str, posed[0])),
        after_draw(counts),
        sizes_in(files, train),
        left_out(files),
    )
