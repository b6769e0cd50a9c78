"""Which layout a folder has: all are tried, and exactly one must fit."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from bench.errors import DataError, UserError, near
from bench.local import located
from tasks.data.listing import visible_folders
from tasks.layouts.layout import TASKS, Layout

DEPTH = 2
"""Folders that hold nothing but one other are gone down to so far: archives often unpack so."""


def formats() -> list[ModuleType]:
    """Return the modules of this folder that know a layout, by its files or by its name."""
    folder = Path(__file__).parent
    names = (module.name for module in pkgutil.iter_modules([str(folder)]))
    modules = [importlib.import_module(f"tasks.layouts.{name}") for name in names]
    return [module for module in modules if hasattr(module, "LOOKED_FOR")]


def recognise(data: Path | str, task: str | None = None) -> Layout:
    """Recognise a set of images by looking at its files.

    Args:
        data: its folder, a file in it such as data.yaml, or the name of a set of torchvision's
            below $CONVBOARD_DATA.
        task: "classification", "detection", "segmentation" or "pose" where the files can train
            several; key points are learnt only where it says "pose".

    Raises:
        UserError: no such task.
        DataError: no such folder, no layout fits, or several do.
    """
    if task is not None and task not in TASKS:
        raise UserError(f"`--task` (={task!r}) is not known; {near(task, TASKS)}")
    known = formats()
    folder = (Path(data) if Path(data).exists() else located(data)).absolute()
    if folder.is_file():
        folder = folder.parent  # such as the data.yaml in it
    if not folder.is_dir():
        named = [layout for module in known if (layout := _by_name(module, str(data)))]
        if named:
            return named[0]
        raise DataError(
            f"`data` (={str(data)!r}) must be a folder, or the name of a set of torchvision's."
        )
    visited = []
    for _ in range(DEPTH + 1):
        visited.append(folder)
        found = [layout for module in known if (layout := _in(module, folder))]
        inner = visible_folders(folder)
        if found or len(inner) != 1:
            break
        folder = inner[0]
    posed = [layout for layout in found if layout.task == "pose"]
    fitting = [layout for layout in found if layout.task == task]
    if task is None:
        fitting = [layout for layout in found if layout.task != "pose"] or posed
    if task != "pose" and posed:
        fitting = [replace(layout, has_poses=layout.task == "detection") for layout in fitting]
    if not fitting:
        _refuse(data, visited, task, found, known)
    if len({layout.task for layout in fitting}) > 1:
        tasks = " or ".join(sorted({layout.task for layout in fitting}))
        words = "; ".join(layout.sentence for layout in fitting)
        raise DataError(
            f"`data` (={str(data)!r}) can train several tasks ({words}): `--task` must say {tasks}."
        )
    if len(fitting) > 1:
        words = "; ".join(layout.sentence for layout in fitting)
        raise DataError(
            f"`data` (={str(data)!r}) has more than one layout ({words}): name the folder of one, "
            "or write the suite's YAML by hand."
        )
    return fitting[0]


def _in(module: ModuleType, folder: Path) -> Layout | None:
    found: Layout | None = module.find(folder) if hasattr(module, "find") else None
    return found


def _by_name(module: ModuleType, name: str) -> Layout | None:
    found: Layout | None = module.named(name) if hasattr(module, "named") else None
    return found


def _almost(module: ModuleType, folder: Path) -> str | None:
    why: str | None = module.almost(folder) if hasattr(module, "almost") else None
    return why


def _refuse(
    data: Path | str,
    visited: list[Path],
    task: str | None,
    found: list[Layout],
    known: list[ModuleType],
) -> NoReturn:
    if found:
        words = "; ".join(layout.sentence for layout in found)
        raise DataError(f"`--task` (={task!r}) does not fit `data` (={str(data)!r}): {words}.")
    close = [why for folder in visited for module in known if (why := _almost(module, folder))]
    if close:
        raise DataError(f"`data` (={str(data)!r}) has no layout that is known: {close[0]}.")
    looked = [module.LOOKED_FOR for module in known]
    wanted = [words for words in looked if task is None or words.startswith(task)]
    raise DataError(
        f"`data` (={str(data)!r}) has no layout that is known. Looked for were "
        + "; ".join(wanted)
        + "."
    )
