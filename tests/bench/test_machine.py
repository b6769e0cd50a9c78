"""What is said about the machine and the commit, and what is never said."""

import getpass
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bench import machine as subject


def git(top, *arguments):
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(
        ["git", "-C", str(top), *identity, *arguments],
        check=True,
        capture_output=True,
        env=environment,
    )


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_checkout_has_a_commit_and_no_patch(checkout):
    state = subject.git_state(checkout)
    assert len(state["git_commit"]) == 40
    assert (state["git_dirty"], state["git_patch_sha256"]) == (False, None)


def test_the_patch_hash_follows_changes_and_new_files_and_ignores_records(checkout):
    hashes = []
    (checkout / "code.py").write_text("a = 2\n")
    hashes.append(subject.git_state(checkout)["git_patch_sha256"])
    (checkout / "new.py").write_text("b = 1\n")
    hashes.append(subject.git_state(checkout)["git_patch_sha256"])
    (checkout / "new.py").write_text("b = 2\n")
    hashes.append(subject.git_state(checkout)["git_patch_sha256"])
    assert len(set(hashes)) == 3
    results = checkout / "leaderboard" / "results"
    results.mkdir(parents=True)
    (results / "record.json").write_text("{}")
    state = subject.git_state(checkout)
    assert state["git_dirty"]
    assert state["git_patch_sha256"] == hashes[-1]
    git(checkout, "checkout", "-q", "--", "code.py")
    (checkout / "new.py").unlink()
    assert subject.git_state(checkout)["git_dirty"] is False


def test_outside_of_a_checkout_nothing_is_said(checkout, tmp_path_factory):
    nothing = {"git_commit": None, "git_dirty": None, "git_patch_sha256": None}
    assert subject.git_state(tmp_path_factory.mktemp("empty")) == nothing
    inside = checkout / "venv" / "lib"
    inside.mkdir(parents=True)
    assert subject.git_state(inside) == nothing


def test_without_git_nothing_is_said(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert subject.git_state(checkout)["git_commit"] is None


def test_the_machine_is_described_without_its_name_or_owner():
    said = subject.machine()
    assert said.cores == subject.usable_cores()
    assert said.memory_bytes % (1 << 30) == 0
    text = said.model_dump_json()
    for secret in (platform.node(), str(Path.home())):
        assert len(secret) < 4 or secret not in text
    assert getpass.getuser() not in text.split()


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("max 100000\n", sys.maxsize),
        ("odd\n", sys.maxsize),
    ],
)
def test_a_control_groups_quota_counts(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    assert subject._quota(tmp_path / "cpu.max") == cores
    assert subject._quota(tmp_path / "none") == sys.maxsize


def test_software_and_provenance_are_filled():
    import torch

    assert subject.software()["torch"] == torch.__version__
    assert subject.software()["python"] == platform.python_version()
    said = subject.provenance(command="a", reproduce="b", mlflow_run="c")
    assert (said.command, said.reproduce, said.mlflow_run) == ("a", "b", "c")
    assert said.created.endswith("+00:00")


@pytest.mark.parametrize(("lines", "count", "driver"), [("a\nb\n", 2, "a"), ("", 1, None)])
def test_gpus_are_the_machines_whichever_a_process_may_see(
    lines, count, driver, tmp_path, monkeypatch
):
    import torch

    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{lines}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    told = subject.machine.__wrapped__()
    assert (told.gpu, told.gpu_count, told.driver) == ("a GPU", count, driver)
