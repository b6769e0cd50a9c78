"""No folder is named in what is published, also where its name holds blanks."""

import sys

import pytest

from bench.places import without_places

ARGUMENTS = ["convboard", "run", "/mnt/my sets/a suite.yaml", "--data=/mnt/other sets/data"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/mnt/a b/c d", "…/c d"),
        ("/mnt/a b/c d/", "…/c d/"),
        ("C:\\a b\\c d", "…/c d"),
        ("/top", "/top"),
        ("a b/c d", "a b/c d"),
        ("no such file: '/mnt/a b/c d.png'", "no such file: '…/c d.png'"),
        ('not "/mnt/a b/c\'s.png", nor `/d e/f`', 'not "…/c\'s.png", nor `…/f`'),
        ("neither ['/a b/c', '/d e/f']", "neither ['…/c', '…/f']"),
        ("it's /mnt/plain/c.png", "it's …/c.png"),
        ("a/b or '/' or c/d", "a/b or '/' or c/d"),
        ("convboard run '/home/a b/c.yaml' --seeds 1", "convboard run '…/c.yaml' --seeds 1"),
        ("in /mnt/my sets/images/1.png", "in …/1.png"),
        ("/mnt/my sets/a suite.yaml has no boards\n", "…/a suite.yaml has no boards\n"),
        ("DataError: /mnt/other sets/data/list is empty", "DataError: …/list is empty"),
        ("sets/mnt/my sets/relative", "sets/mnt/my sets/relative"),
        ("file:///mnt/my sets/a.png", "file://…/a.png"),
    ],
)
def test_of_a_path_from_the_root_its_last_part_stays(text, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", ARGUMENTS)
    assert without_places({"key": [text]}) == {"key": [expected]}
    assert without_places(expected) == expected


def test_a_path_that_is_known_as_a_whole_is_known_in_sentences(monkeypatch):
    value = {
        "config": {"root": "/mnt/a b/coco"},
        "error": "DataError: /mnt/a b/coco/x.json lies not in /mnt/a b/coco or /mnt/a b/voc.",
    }
    assert without_places(value) == {
        "config": {"root": "…/coco"},
        "error": "DataError: …/x.json lies not in …/coco or …/voc.",
    }


def test_the_folders_of_the_process_are_known(monkeypatch, tmp_path):
    place = tmp_path / "a b"
    place.mkdir()
    monkeypatch.chdir(place)
    assert without_places(f"no {place}/c d there") == "no …/c d there"
    monkeypatch.setenv("CONVBOARD_DATA", "/mnt/e f")
    assert without_places("no /mnt/e f/g there") == "no …/g there"
