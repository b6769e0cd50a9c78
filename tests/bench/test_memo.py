"""What is remembered is what was made; it is made anew where the code is another."""

import pytest

from bench import memo


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path))
    return tmp_path / "memo"


def counted(values):
    calls = iter(values)
    return lambda: next(calls)


def test_a_value_is_made_once_for_each_argument():
    make = counted([{"a": [1, None]}, "other"])
    assert memo.remembered("kind", 1, make) == memo.remembered("kind", 1, make) == {"a": [1, None]}
    assert memo.remembered("kind", 2, make) == "other"


def test_other_code_makes_it_anew(monkeypatch):
    make = counted([1, 2])
    assert memo.remembered("kind", 1, make) == 1
    monkeypatch.setattr(memo, "code", lambda: "other")
    assert memo.remembered("kind", 1, make) == 2


def test_the_code_is_that_of_files_and_of_installed_versions(monkeypatch, tmp_path):
    before = memo.code.__wrapped__()
    assert memo.code.__wrapped__() == before
    (tmp_path / "installed" / "torch-99.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    assert memo.code.__wrapped__() != before


def test_an_error_is_not_remembered():
    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        memo.remembered("kind", 1, fail)
    assert memo.remembered("kind", 1, lambda: 1) == 1


def test_a_file_that_is_damaged_is_made_anew(folder):
    memo.remembered("kind", 1, lambda: 1)
    (file,) = folder.rglob("*.json")
    file.write_text("{")
    assert memo.remembered("kind", 1, lambda: 2) == 2
    assert file.read_text() == "2"


def test_without_a_folder_it_is_made_each_time(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONVBOARD_CACHE", str(tmp_path / "file"))
    make = counted([1, 2])
    assert [memo.remembered("kind", 1, make) for _ in range(2)] == [1, 2]
