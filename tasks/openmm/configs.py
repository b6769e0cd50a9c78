"""Configs of detectors and segmentors: the shipped ones, a user's own, and changes to them."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from bench.errors import ConfigError, near
from tasks.openmm.packages import (
    DETECTION_PARTS,
    DETECTORS,
    SEGMENTORS,
    Library,
    mmdet,
    mmengine,
    mmseg,
    quiet,
)


def shipped(library: Library) -> list[str]:
    """Return the model configs in the installed package, as paths in its config folder.

    Example:
        >>> "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py" in shipped("mmdet")
        True
    """
    root = _config_root(library)
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*.py") if _is_model(p, root))


def _config_root(library: Library) -> Path:
    package = {"mmdet": mmdet, "mmseg": mmseg}[library]
    return Path(package.__path__[0]) / ".mim" / "configs"


def _is_model(path: Path, root: Path) -> bool:
    return path.relative_to(root).parts[0] not in ("_base_", "common")


def shipped_config(library: Library, name: str) -> dict[str, Any]:
    """Return the `model` part of a config file that mmdet or mmseg ships.

    Args:
        library: "mmdet" or "mmseg".
        name: path in the package's config folder, as `shipped` lists it.

    Raises:
        ConfigError: no such file.

    Example:
        >>> shipped_config("mmseg", "upernet/upernet_r50_4xb4-80k_ade20k-512x512.py")["type"]
        'EncoderDecoder'
    """
    path = _config_root(library) / name
    if ".." in Path(name).parts or not path.is_file():
        raise ConfigError(
            f"`name` (={name!r}) is no config of {library}; {near(name, shipped(library))}"
        )
    return copy.deepcopy(_ran(path))


@cache
def _ran(path: Path) -> dict[str, Any]:
    """Return a shipped config, run once: the networks of a race all begin with it."""
    return _run(path)


def _run(path: Path) -> dict[str, Any]:
    with quiet():
        whole = mmengine.config.Config.fromfile(path, import_custom_modules=False)
    if "model" not in whole:
        raise ConfigError(f"{path.name} has no `model`.")
    return dict(whole.model.to_dict())


def read_config(library: Library, path: str | Path, *, trust: bool = False) -> dict[str, Any]:
    """Return the `model` part of a user's own mmdet or mmseg config.

    YAML and JSON files are data: they are parsed without running anything, and may name only
    classes that mmengine, mmdet and mmseg have registered. Their `_base_` may be the name of a
    config that the library ships (see `shipped`), whose keys they change. A Python file is a
    program; it runs only with `trust`.

    Args:
        library: "mmdet" or "mmseg".
        path: a .yaml, .yml, .json or .py file with a `model` (or that is a model: has `type`).
        trust: run a .py file.

    Raises:
        ConfigError: no such file, not trusted, no model in it, or an unknown class.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"`head` (={str(path)!r}) is no file.")
    if path.suffix == ".py":
        if not trust:
            raise ConfigError(
                f"`head` (={str(path)!r}) is a Python file, and reading it would run it: pass "
                "`trust_config=True` if you trust it, or write the model as YAML."
            )
        return _run(path)
    if path.suffix not in (".yaml", ".yml", ".json"):
        raise ConfigError(f"`head` (={str(path)!r}) must be a .yaml, .yml, .json or .py file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path.name} cannot be parsed: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path.name} must hold a mapping with `model`.")
    base = content.pop("_base_", None)
    model = content.get("model", content if "type" in content else None)
    if not isinstance(model, dict):
        raise ConfigError(f"{path.name} has no `model`.")
    check_types(model, path.name)
    if base is None:
        return model
    shipped_model = shipped_config(library, str(base))
    _refuse(str(shipped_model["type"]), str(base))
    return merged(shipped_model, model)


def head_config(
    library: Library, head: str, shipped: Mapping[str, str], *, trust: bool = False
) -> dict[str, Any]:
    """Return the `model` part of a config that a user names.

    Args:
        library: "mmdet" or "mmseg".
        head: a short name, or the path of a config of one's own.
        shipped: short name → the config that the library ships.
        trust: run a config that is a Python file.

    Raises:
        ConfigError: neither; or what `read_config` says of the file.
    """
    if head in shipped:
        return shipped_config(library, shipped[head])
    if Path(head).suffix:
        return read_config(library, head, trust=trust)
    raise ConfigError(
        f"`head` (={head!r}) is neither a config file nor a head; {near(head, shipped)}"
    )


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model config with some keys changed; mappings merge, everything else replaces.

    Raises:
        ConfigError: a `type` that is not registered.

    Example:
        >>> merged({"neck": {"type": "FPN", "num_outs": 5}}, {"neck": {"num_outs": 4}})
        {'neck': {'type': 'FPN', 'num_outs': 4}}
    """
    check_types(changes, "the changes")
    whole = dict(config)
    for key, value in changes.items():
        old = whole.get(key)
        whole[key] = value
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            # A part of another type has other arguments, so nothing of the old one stays.
            same = value.get("type", old.get("type")) == old.get("type")
            whole[key] = merged(old, value) if same else value
    return whole


# Operations of mmcv, which are looked up by name outside of the registries.
_BY_NAME = {"nms", "soft_nms", "RoIAlign", "RoIPool"}
# Of what the packages register, that which runs or fetches what a string names: a teacher's config
# in Python, an expression (of a tracker's motion), Detectron2's and language models.
_OTHER_MODELS = {
    "Detectron2Wrapper",
    "GLIP",
    "GroundingDINO",
    "KnowledgeDistillationSingleStageDetector",
    "LAD",
}
_OTHER_MODULES = (
    "mmdet.models.language_models.",
    "mmdet.models.mot.",
    "mmdet.models.task_modules.tracking.",
    "mmdet.models.trackers.",
    "mmdet.models.vis.",
)


def check_types(cfg: Any, source: str) -> None:
    """ConfigError unless every `type` is a registered name of what runs no code that it is given.

    mmengine imports a dotted `type` and mmcv evaluates that of an NMS, so an unchecked one would
    run code from a config.
    """
    if isinstance(cfg, Mapping):
        if "type" in cfg:
            name = str(cfg["type"])
            known = registered()
            bare = re.sub(r"^(mmdet|mmseg|mmcv|mmengine)\.", "", name)
            if bare not in known:
                _refuse(bare, source)
                raise ConfigError(
                    f"`type` (={name!r}) in {source} is not registered; {near(bare, known)}"
                )
        for value in cfg.values():
            check_types(value, source)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            check_types(value, source)


def registered() -> set[str]:
    """Return the names of all classes that a model config may use."""
    return _BY_NAME | {name for name, made in _classes().items() if not _is_other(name, made)}


def _classes() -> dict[str, Any]:
    """Return name → class of all that is registered."""
    registries = (
        DETECTORS,
        SEGMENTORS,
        DETECTION_PARTS,
        mmengine.registry.MODELS,
        mmengine.registry.WEIGHT_INITIALIZERS,
    )
    return {name: made for registry in registries for name, made in registry.module_dict.items()}


def _is_other(name: str, made: Any) -> bool:
    return name in _OTHER_MODELS or made.__module__.startswith(_OTHER_MODULES)


def _refuse(name: str, source: str) -> None:
    """ConfigError if a registered class is one of those that run or fetch what a string names."""
    made = _classes().get(name)  # a registry's own `get` imports a name that it does not know
    if made is not None and _is_other(name, made):
        raise ConfigError(
            f"`type` (={name!r}) in {source} would run or fetch what a config names, or is a "
            "tracker: only detectors and segmentors around one backbone are built here."
        )
