"""The YAML files of configs/: found by name, read safely, laid over each other."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml

from bench.errors import ConfigError, near, require

Kind = Literal["suites", "tasks", "hosts", "operators", "recipes"]


def folders() -> list[Path]:
    """Return where configs are looked for: ./configs, then those that came with the package."""
    package = Path(__file__).parents[1]
    shipped = [package / "configs", package.parent / "configs"]
    return [Path("configs"), *(path for path in shipped if path.is_dir())]


def known(kind: Kind) -> list[str]:
    """Return the names of all configs of a kind."""
    return sorted({path.stem for folder in folders() for path in (folder / kind).glob("*.yaml")})


def find(kind: Kind, name: str) -> Path:
    """Return the file of a config: a path that ends in .yaml, or a name in configs/."""
    if name.endswith((".yaml", ".yml")):
        return existing(name)
    for folder in folders():
        path = folder / kind / f"{name}.yaml"
        if path.is_file():
            return path
    if kind == "suites" and Path(name).is_dir():
        raise ConfigError(
            f"`suite` (={name!r}) is a folder; `convboard compare HOST --data {name}` compares "
            "operators on the images in it, and writes the suite."
        )
    raise ConfigError(f"`{kind[:-1]}` (={name!r}) is not known; {near(name, known(kind))}")


def require_suite_file(out: Path | None) -> None:
    """UserError unless a suite may be written there: by its suffix it is known for one."""
    known = out is None or out.suffix in (".yaml", ".yml")
    require("--out", str(out), known, "a file that ends in .yaml")


def existing(name: str) -> Path:
    """Return the path of a file that must be there."""
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"`{name}`: there is no such file.")
    return path


def read(path: Path) -> dict[str, Any]:
    """Read one YAML file as data; nothing in it is executed."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name} is not YAML of plain data: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path.name} must hold a mapping, not {type(value).__name__}.")
    return value


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another: mappings are merged, everything else is replaced.

    Example:
        >>> merge({"model": {"lr": 1, "wd": 2}}, {"model": {"lr": 3}})
        {'model': {'lr': 3, 'wd': 2}}
    """
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        both = isinstance(value, dict) and isinstance(under, dict)
        merged[key] = merge(under, value) if both else copy.deepcopy(value)  # type: ignore[arg-type]
    return merged


def assign(config: dict[str, Any], dotted: str, flag: str = "--set") -> None:
    """Apply one `a.b.c=value` to a configuration; the value is read as YAML.

    Args:
        config: changed in place.
        dotted: what a user typed.
        flag: behind which he typed it, for errors.
    """
    name, equals, text = dotted.partition("=")
    if not equals or not name:
        raise ConfigError(
            f"`{flag}` (={dotted!r}) must read name=value: trainer.max_epochs=3, kernel_size=7."
        )
    at = config
    *path, last = name.split(".")
    for key in path:
        at = at.setdefault(key, {})
        if not isinstance(at, dict):
            raise ConfigError(f"`{flag}` (={dotted!r}): {key} holds a value, not a mapping.")
    try:
        at[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"`{flag}` (={dotted!r}) must have a value in YAML: {error}") from None


def put(config: dict[str, Any], name: str, value: Any) -> None:
    """Put a value where a dotted name says, and mappings on the way to it.

    Example:
        >>> config = {"model": {"wd": 2}}
        >>> put(config, "model.lr", 1)
        >>> config
        {'model': {'wd': 2, 'lr': 1}}
    """
    *path, last = name.split(".")
    for key in path:
        config = config.setdefault(key, {})
    config[last] = value


def dotted(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of the values in nested mappings.

    Example:
        >>> dotted({"model": {"lr": 1, "wd": 2}, "seed": 0})
        ['model.lr', 'model.wd', 'seed']
    """
    names: list[str] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        inside = isinstance(value, Mapping) and value
        names += dotted(value, f"{name}.") if inside else [name]
    return names


def value_at(config: Mapping[str, Any], name: str) -> Any:
    """Return the value of a dotted name; None where there is none."""
    at: Any = config
    for key in name.split("."):
        at = at.get(key) if isinstance(at, Mapping) else None
    return at
