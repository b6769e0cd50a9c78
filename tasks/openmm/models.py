"""Detectors of mmdet and segmentors of mmseg, built around any backbone."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

from torch import Tensor, nn

from tasks.openmm.packages import DETECTORS, SEGMENTORS, Library, mmengine, quiet


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


class Wrapped(nn.Module):
    """A detector or segmentor of OpenMMLab as it is used here: normalised within.

    Args:
        model: what `build` returned.
        normalize: images in 0…1 → what the backbone was made for.
    """

    def __init__(self, model: nn.Module, normalize: nn.Module) -> None:
        super().__init__()
        self.model: Any = model
        self.normalize = normalize

    def around(self, backbone: nn.Module) -> Self:
        """Return a copy around another backbone with the same feature maps."""
        lent = self.model.backbone
        self.model.backbone = None
        try:
            other = copy.deepcopy(self)
        finally:
            self.model.backbone = lent
        other.model.backbone = ConvBoardBackbone(backbone, lent.indices)
        return other


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
        >>> import timm, torch
        >>> host = timm.create_model("test_resnet", features_only=True, out_indices=(1, 2, 3, 4))
        >>> from tasks.openmm.configs import shipped_config
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
        if not any(parameter.is_meta for parameter in model.parameters()):
            model.init_weights()  # it looks at the values, and on the meta device there are none
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
        portable = {key: _portable(value) for key, value in cfg.items() if key != "init_cfg"}
        if init := _without_downloads(cfg.get("init_cfg")):
            portable["init_cfg"] = init
        return portable | ({"type": "BN"} if portable.get("type") == "SyncBN" else {})
    if isinstance(cfg, (list, tuple)):
        return type(cfg)(_portable(value) for value in cfg)
    return cfg


def _without_downloads(init: Any) -> Any:
    """Return what initialises a module, one mapping or several, without weights of others."""
    if isinstance(init, (list, tuple)):
        return [one for one in init if _without_downloads(one)]
    download = isinstance(init, Mapping) and init.get("type") == "Pretrained"
    return None if download else init
