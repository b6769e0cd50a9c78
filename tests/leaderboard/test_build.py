"""The site on disk: the same bytes, nothing of others removed, bad records named, the schema."""

import io
import json
import runpy
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.hashing import canonical, digest
from bench.record import json_schema
from leaderboard import published
from leaderboard.build import NAME, build
from leaderboard.encode import archive

make = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("leaderboard_records.py"))))


def test_the_same_records_give_the_same_bytes(tmp_path):
    records = make.suite(seeds=(0, 1))[:12]
    for record in records:
        record.save(tmp_path / "one")
    for record in reversed(records):
        record.save(tmp_path / "two" / "below")
    for name in ("one", "two"):
        build(tmp_path / name, tmp_path / f"{name}-site")
    build(tmp_path / "one", tmp_path / "one-site")

    def content(folder):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    assert content(tmp_path / "one-site") == content(tmp_path / "two-site")


def test_a_rebuild_removes_old_pages_and_nothing_else(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    make.accuracy(make.entry("parc"), 0, 0.8).save(first)
    make.accuracy(make.entry("shift"), 0, 0.8).save(second)
    build(first, tmp_path / "site")
    (tmp_path / "site" / "CNAME").write_text("example.org")
    build(second, tmp_path / "site")
    assert [path.name[:5] for path in (tmp_path / "site" / "entries").iterdir()] == ["shift"]
    assert (tmp_path / "site" / "CNAME").read_text() == "example.org"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("identity", "../../../../../evil"),
        ("identity", "a" * 63 + "/"),
        ("created", "2026-11-22T01:00:00/../../evil"),
        ("created", "<script>"),
    ],
)
def test_a_record_cannot_name_a_file_elsewhere(tmp_path, field, value):
    (tmp_path / "records").mkdir()
    record = make.SCORED.model_dump(mode="json")
    (record if field == "identity" else record["provenance"])[field] = value
    (tmp_path / "records" / "a.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=rf"a\.json .*{field}"):
        build(tmp_path / "records", tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_no_file_takes_the_place_of_another_of_its_name(tmp_path):
    records = [make.accuracy(make.entry("parc"), 0, value) for value in (0.8, 0.7)]
    good, other = (r.save(tmp_path / "records" / n) for r, n in zip(records, "ba", strict=True))
    other.rename(other.with_name(good.name))
    build(tmp_path / "records", tmp_path / "site")
    found = {path.name for path in (tmp_path / "site" / "records").iterdir()}
    assert found == {record.filename for record in records}
    kept = (tmp_path / "site" / "records" / records[0].filename).read_bytes()
    assert kept == good.read_bytes()


def test_what_is_known_is_not_made_again(tmp_path):
    records = make.suite(seeds=(0,))[:6]
    for record in records:
        record.save(tmp_path / "records")
    build(tmp_path / "records", tmp_path / "site")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "site").rglob("*") if p.is_file()}
    other = make.accuracy(make.entry("acb", host="resnet18"), 0, 0.7)
    other.save(tmp_path / "records")
    steps = []
    build(tmp_path / "records", tmp_path / "site", progress=lambda *step: steps.append(step))
    kept = {
        p.relative_to(tmp_path / "site")
        for p, time in before.items()
        if p.stat().st_mtime_ns == time
    }
    assert sum(path.parts[0] == "records" for path in kept) == len(records)
    assert sum(path.parts[0] == "boards" for path in kept) == len(
        list((tmp_path / "site" / "boards").glob("*conv*next*"))
    )
    assert sum(path.parts[0] == "entries" for path in kept) == 2
    assert (tmp_path / "site" / "records" / other.filename).is_file()
    assert steps[0][0] == 0
    assert steps[-1][0] == steps[-1][1] > len(records)
    build(tmp_path / "records", tmp_path / "anew")
    for path in (tmp_path / "anew").rglob("*"):
        if path.is_file():
            same = tmp_path / "site" / path.relative_to(tmp_path / "anew")
            assert path.read_bytes() == same.read_bytes(), path


def test_the_archive_of_all_records_takes_over_what_is_packed():
    content = {f"records/{i}.json": bytes([i]) * 5000 for i in range(5)}
    hashes = {name: digest(text.hex()) for name, text in content.items()}
    first = archive(hashes, content.__getitem__)
    more = {**content, "records/00.json": b"new", "records/3.json": b"changed"}
    known = {name: digest(text.hex()) for name, text in more.items() if name != "records/4.json"}
    asked = []

    def given(name):
        asked.append(name)
        return more[name]

    assert archive(known, given, first) == archive(known, more.__getitem__)
    assert asked == ["records/00.json", "records/3.json"]
    assert archive(known, more.__getitem__, b"no archive") == archive(known, more.__getitem__)
    with zipfile.ZipFile(io.BytesIO(archive(known, given, first))) as packed:
        assert packed.testzip() is None
        assert {name: packed.read(name) for name in packed.namelist()} == {
            n: more[n] for n in known
        }


def test_a_record_keeps_the_name_that_it_gives_itself():
    for created in ("2026-11-22T01:00:00+00:00", "2026-11-22T01:00:00.123+00:00"):
        record = make.accuracy(make.entry("parc"), 0, 0.8, provenance=make.provenance(created))
        assert NAME.fullmatch(record.filename)


def test_a_build_that_is_interrupted_leaves_the_old_site_whole(tmp_path):
    make.accuracy(make.entry("parc"), 0, 0.8).save(tmp_path / "records")
    build(tmp_path / "records", tmp_path / "site")
    before = {p: p.read_bytes() for p in (tmp_path / "site").rglob("*") if p.is_file()}
    make.accuracy(make.entry("acb"), 0, 0.7).save(tmp_path / "records")

    def interrupted(done, total):
        if done == total - 2:
            raise KeyboardInterrupt

    for site in ("site", "never"):
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "records", tmp_path / site, progress=interrupted)
    assert {p: p.read_bytes() for p in (tmp_path / "site").rglob("*") if p.is_file()} == before
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("moved", [0, 1, 9])
def test_a_build_that_is_killed_while_files_are_moved_is_mended_by_the_next(
    tmp_path, monkeypatch, moved
):
    make.accuracy(make.entry("parc"), 0, 0.8).save(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    make.accuracy(make.entry("acb"), 0, 0.7).save(tmp_path / "new")
    replace, count = Path.replace, 0

    def killed(path, target):
        nonlocal count
        count += 1
        if count > moved:
            raise OSError("killed")
        return replace(path, target)

    def content(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    for after in ("old", "new"):
        site, anew = tmp_path / f"site of {after}", tmp_path / f"{after} anew"
        build(tmp_path / "old", site)
        count = 0
        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", killed)
            with pytest.raises(OSError, match="killed"):
                build(tmp_path / "new", site)
        build(tmp_path / after, site)
        build(tmp_path / after, anew)
        assert content(site) == content(anew)


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("x")
    with pytest.raises(ValueError, match=r"`site` .* must be a new or empty folder"):
        build(tmp_path / "records", tmp_path / "thesis")
    with pytest.raises(ValueError, match=r"`records` .* must be a folder"):
        build(tmp_path / "nowhere", tmp_path / "site")


def test_a_manifest_cannot_remove_files_outside_the_site(tmp_path):
    (tmp_path / "records").mkdir()
    build(tmp_path / "records", tmp_path / "site")
    precious = tmp_path / "precious"
    precious.write_text("x")
    names = ["../precious", str(precious)]
    (tmp_path / "site" / "convboard-site.json").write_text(json.dumps({"files": names}))
    build(tmp_path / "records", tmp_path / "site")
    assert precious.exists()


def test_a_broken_record_is_named(tmp_path):
    (tmp_path / "broken.json").write_text('{"kind": "accuracy"}')
    with pytest.raises(ValueError, match=r"broken\.json .* `entry`"):
        build(tmp_path, tmp_path / "site")


def test_committed_schema_is_current():
    path = Path(published.__file__).with_name("schema-1.json")
    assert path.read_text(encoding="utf-8") == canonical(json_schema()) + "\n"
