"""The bridge to OpenMMLab: mmdet and mmsegmentation from wheels, without compiling anything.

This is the one file that imports mmengine, mmcv, mmdet and mmseg. Where mmcv's compiled part
`mmcv._ext` is not installed (mmcv-lite), `tasks.openmm_ops`, `openmm_convs` and `openmm_losses`
answer its calls; a compiled mmcv is used where there is one. What the packages get wrong on a
current Python and torch is worked around here: their warnings, their version checks (asserts
become one message), SyncBN (a model built here trains on a CPU; Lightning's `sync_batchnorm` is
for several GPUs), and pre-trained weights, which their configs would download.

Without a compiled mmcv these do not work, as torchvision and torch have nothing like them, and a
`CompiledOpError` says so when they are first called: CARAFE upsampling (mmdet's configs/carafe),
deformable RoI pooling (configs/dcn and dcnv2, *pool*), the masks of PSANet (mmseg's
configs/psanet), RoIAlign with maxima, and operations on rotated boxes, polygons and points.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import re
import sys
import types
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, cast

import torch
import yaml
from packaging.version import Version
from torch import Tensor, nn

from bench.operators.registry import near
from tasks import openmm_convs, openmm_losses, openmm_ops

Library = Literal["mmdet", "mmseg"]

# Package, distributions that provide it, lowest version, first version that is refused.
SUPPORTED = (
    ("mmengine", ("mmengine",), "0.7.1", "1.0.0"),
    ("mmcv", ("mmcv", "mmcv-lite"), "2.0.0rc4", "2.2.0"),
    ("mmdet", ("mmdet",), "3.3.0", "4.0.0"),
    ("mmseg", ("mmsegmentation",), "1.2.0", "2.0.0"),
)


class ConfigError(ValueError):
    """A detector or segmentor config that cannot be used."""


def check_versions() -> None:
    """ImportError, naming every package that mmdet or mmseg would refuse or that is missing."""
    wrong = []
    for package, distributions, low, high in SUPPORTED:
        found = None
        for distribution in distributions:
            try:
                found = version(distribution)
                break
            except PackageNotFoundError:
                continue
        if found is None:
            wrong.append(f"{package} is not installed (`pip install {distributions[-1]}`)")
        elif not Version(low) <= Version(found) < Version(high):
            wrong.append(f"{package} {found} is not at least {low} and below {high}")
    if wrong:
        raise ImportError(
            "detection and segmentation need OpenMMLab packages that fit each other: "
            + "; ".join(wrong)
            + ". `pip install mmdet==3.3.0 mmsegmentation==1.2.2 mmengine==0.10.7 "
            "mmcv-lite==2.1.0` fits."
        )


class _Answers(types.ModuleType):
    """`mmcv._ext` made of our answers; every other name is a function that refuses."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for module in (openmm_ops, openmm_convs, openmm_losses):
            if hasattr(module, name):
                return getattr(module, name)
        return openmm_ops.missing(name)


def answer_compiled_calls() -> bool:
    """Put our answers in the place of `mmcv._ext`; return False where mmcv is compiled."""
    name = "mmcv._ext"
    if name in sys.modules:
        return isinstance(sys.modules[name], _Answers)
    if importlib.util.find_spec(name) is not None:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(
                f"the compiled part of mmcv does not load with torch {torch.__version__} "
                f"({error}); install mmcv-lite in its place, or compile mmcv for this torch."
            ) from error
        return False
    module = _Answers(name)
    module.__spec__ = ModuleSpec(name, None)
    sys.modules[name] = module
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out the warnings that OpenMMLab's own code causes on a current torch."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"mm(engine|cv|det|seg)\b")
        # torch blames itself for how mmdet's point generator calls it.
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        yield


check_versions()
with warnings.catch_warnings():
    # Deprecation and syntax warnings of packages that are no longer maintained.
    warnings.simplefilter("ignore")
    WITHOUT_COMPILED = answer_compiled_calls()
    import mmdet.models
    import mmengine.config
    import mmengine.logging
    import mmengine.registry
    import mmengine.structures
    import mmseg.models
    import mmseg.structures
    from mmdet.registry import MODELS as DETECTORS
    from mmdet.registry import TASK_UTILS as DETECTION_PARTS
    from mmdet.structures import DetDataSample as DetDataSample
    from mmdet.structures.mask import BitmapMasks as BitmapMasks
    from mmengine.structures import InstanceData as InstanceData
    from mmseg.registry import MODELS as SEGMENTORS

# Building a model logs a line for each of its parameters otherwise.
mmengine.logging.MMLogger.get_current_instance().setLevel("WARNING")


@mmengine.registry.MODELS.register_module()
class ConvBoardBackbone(nn.Module):
    """Any module with a list of feature maps as output, as mmdet's and mmseg's backbone.

    Args:
        module: (N, 3, H, W) → list of (N, C_i, H / s_i, W / s_i).
        indices: which of the maps to hand on, in order; None for all.
        owned: whether the weights of `module` belong to the model. False where the caller holds
            the module too, so that they are not twice in its parameters and checkpoints.
    """

    def __init__(
        self, module: nn.Module, indices: Sequence[int] | None = None, owned: bool = True
    ) -> None:
        super().__init__()
        # torch registers a module that is an attribute, and none that is in a tuple.
        self._lent: tuple[nn.Module, ...] = () if owned else (module,)
        self._owned = module if owned else None
        self.indices = None if indices is None else tuple(indices)

    @property
    def module(self) -> nn.Module:
        """The module itself."""
        return self._lent[0] if self._owned is None else self._owned

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the chosen feature maps, finest first."""
        maps = self.module(x)
        return tuple(maps) if self.indices is None else tuple(maps[i] for i in self.indices)

    def init_weights(self) -> None:
        """Keep the weights: the host or its checkpoint has set them."""


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
    text = path.read_text(encoding="utf-8")
    try:
        own = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path.name} cannot be parsed: {error}") from error
    if not isinstance(own, dict):
        raise ConfigError(f"{path.name} must hold a mapping with `model`.")
    base = own.pop("_base_", None)
    model = own.get("model", own if "type" in own else None)
    if not isinstance(model, dict):
        raise ConfigError(f"{path.name} has no `model`.")
    check_types(model, path.name)
    return model if base is None else merged(shipped_config(library, str(base)), model)


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


def check_types(cfg: Any, source: str) -> None:
    """ConfigError unless every `type` is a registered name.

    mmengine imports a dotted `type` and mmcv evaluates that of an NMS, so an unchecked one would
    run code from a config.
    """
    if isinstance(cfg, Mapping):
        if "type" in cfg:
            name = str(cfg["type"])
            known = registered()
            bare = re.sub(r"^(mmdet|mmseg|mmcv|mmengine)\.", "", name)
            if bare not in known:
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
    registries = (
        DETECTORS,
        SEGMENTORS,
        DETECTION_PARTS,
        mmengine.registry.MODELS,
        mmengine.registry.WEIGHT_INITIALIZERS,
    )
    return _BY_NAME | {name for registry in registries for name in registry.module_dict}


def build(
    library: Library,
    config: Mapping[str, Any],
    backbone: nn.Module,
    *,
    indices: Sequence[int] | None = None,
    owned: bool = True,
) -> nn.Module:
    """Build a detector or segmentor of mmdet or mmseg around a backbone.

    Args:
        library: whose registry to build in: "mmdet" or "mmseg".
        config: the `model` of a config; its `backbone` and pre-processing are replaced.
        backbone: (N, 3, H, W) → list of feature maps; used as it is, not copied.
        indices: which of the maps the neck or head gets; None for all.
        owned: whether the backbone's weights are the model's own; see `ConvBoardBackbone`.

    Returns:
        The initialised model; `model.backbone.module` is `backbone`.

    Example:
        >>> import timm
        >>> host = timm.create_model("test_resnet", features_only=True, out_indices=(1, 2, 3, 4))
        >>> config = shipped_config("mmseg", "upernet/upernet_r50_4xb4-80k_ade20k-512x512.py")
        >>> config["decode_head"] |= {"in_channels": host.feature_info.channels(), "channels": 8}
        >>> config["auxiliary_head"] |= {"in_channels": host.feature_info.channels()[2]}
        >>> model = build("mmseg", config, host).eval()
        >>> model.encode_decode(torch.zeros(1, 3, 64, 64), [{"img_shape": (64, 64)}]).shape
        torch.Size([1, 150, 64, 64])
    """
    cfg = _portable(copy.deepcopy(dict(config)))
    for replaced in ("data_preprocessor", "pretrained", "init_cfg"):
        cfg.pop(replaced, None)
    cfg["backbone"] = {
        "type": "ConvBoardBackbone",
        "module": backbone,
        "indices": indices,
        "owned": owned,
    }
    registry = {"mmdet": DETECTORS, "mmseg": SEGMENTORS}[library]
    note_progress(0, 0)
    with quiet():
        model: Any = registry.build(mmengine.config.ConfigDict(cfg))
        model.init_weights()
    assert model.backbone.module is backbone
    return cast(nn.Module, model)


def note_progress(epoch: int, step: int) -> None:
    """Say how far training is: some heads (TOOD's) change their assigner with it."""
    hub = mmengine.logging.MessageHub.get_current_instance()
    hub.update_info("epoch", epoch)
    hub.update_info("iter", step)


def _portable(cfg: Any) -> Any:
    """Leave out downloads, and the norm that only runs in a process group."""
    if isinstance(cfg, Mapping):
        kept = {
            key: _portable(value)
            for key, value in cfg.items()
            if not (key == "init_cfg" and _is_download(value))
        }
        return kept | ({"type": "BN"} if kept.get("type") == "SyncBN" else {})
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(_portable(value) for value in cfg)
    return cfg


def _is_download(init: Any) -> bool:
    return isinstance(init, Mapping) and init.get("type") == "Pretrained"


# Segmentation: mmseg's data structures around plain tensors.


def segmentor_losses(model: nn.Module, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
    """Return the losses of a segmentor of mmseg by name; each is a scalar.

    Args:
        model: a segmentor.
        images: (N, 3, H, W), normalised.
        masks: (N, H, W) int64 labels, 255 ignored.
    """
    samples = []
    for mask, meta in zip(masks, _metas(images), strict=True):
        sample = mmseg.structures.SegDataSample(metainfo=meta)
        sample.gt_sem_seg = mmengine.structures.PixelData(data=mask[None])
        samples.append(sample)
    segmentor: Any = model
    with quiet():
        found: dict[str, Tensor] = segmentor.loss(images, samples)
    # What is no loss (the accuracy of the batch) is for mmengine's log.
    return {name: value.mean() for name, value in found.items() if "loss" in name}


def segmentor_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits (N, C, H, W) of a segmentor for normalised images (N, 3, H, W)."""
    segmentor: Any = model
    with quiet():
        logits: Tensor = segmentor.encode_decode(images, _metas(images))
    return logits


def _metas(images: Tensor) -> list[dict[str, Any]]:
    shape = (images.shape[-2], images.shape[-1])
    return [{"img_shape": shape, "pad_shape": shape, "ori_shape": shape} for _ in images]
