"""Public keys of the networks around the operators."""

from __future__ import annotations

import re

from timm.layers import NormMlpClassifierHead
from timm.models._features import FeatureDictNet, FeatureGetterNet
from timm.models.convnext import ConvNeXt, ConvNeXtBlock, ConvNeXtStage

from bench.backbones.unireplk_block import UniRepLKBlock
from bench.backbones.unireplknet import Stage, UniRepLKNet
from bench.checkpoints.operators import take_over
from bench.checkpoints.transfer import Scope


@take_over.register
def _getter(module: FeatureGetterNet, scope: Scope) -> None:
    take_over(module.model, scope.child("model", ""))


@take_over.register
def _head(module: NormMlpClassifierHead, scope: Scope) -> None:
    """A norm and a linear layer, which lie at the top of the public networks."""
    top = scope.parent()
    take_over(module.norm, top.child("norm"))
    take_over(module.fc, top.child("fc", "head"))


@take_over.register
def _unireplknet(module: UniRepLKNet, scope: Scope) -> None:
    take_over(module.stem, scope.child("stem", "downsample_layers.0"))
    for index, stage in enumerate(module.stages):
        assert isinstance(stage, Stage)
        place = scope.child(f"stages.{index}", "")
        take_over(stage.downsample, place.child("downsample", f"downsample_layers.{index}"))
        take_over(stage.blocks, place.child("blocks", f"stages.{index}"))
    for index, norm in enumerate(module.feature_norms):
        take_over(norm, scope.child(f"feature_norms.{index}", f"norm{index}"))
    take_over(module.head, scope.child("head"))


@take_over.register
def _block(module: UniRepLKBlock, scope: Scope) -> None:
    operator = "large_kernel" if scope.has("large_kernel.") else "dwconv"
    take_over(module.operator, scope.child("operator", operator))
    take_over(module.norm, scope.child("norm"))
    take_over(module.se, scope.child("se"))
    inner, channels = module.expand.weight.shape[:2]
    scope.move("expand.weight", "pwconv1.1.weight", (inner, channels))
    scope.move("expand.bias", "pwconv1.1.bias")
    for name, value in (("gamma", module.grn.gamma), ("beta", module.grn.beta)):
        if value is not None:
            scope.move(f"grn.{name}", f"act.1.{name}", (1, 1, 1, inner))
    scope.move("reduce.weight", "pwconv2.0.weight", (channels, inner))
    if module.reduce.bias is not None:
        scope.move("reduce.bias", "pwconv2.0.bias")
    take_over(module.reduce_norm, scope.child("reduce_norm", "pwconv2.2"))
    if module.gamma is not None:
        scope.move("gamma")


@take_over.register
def _convnext(module: ConvNeXt, scope: Scope) -> None:
    take_over(module.stem, scope.child("stem", "downsample_layers.0"))
    for index, stage in enumerate(module.stages):
        take_over(stage, scope.child(f"stages.{index}"))
    take_over(module.norm_pre, scope.child("norm_pre"))
    take_over(module.head, scope.child("head"))


@take_over.register
def _convnext_stage(module: ConvNeXtStage, scope: Scope) -> None:
    index = scope.public.rstrip(".").rpartition(".")[2]
    above = scope.parent().parent()
    take_over(module.downsample, above.child("downsample", f"downsample_layers.{index}"))
    take_over(module.blocks, scope.child("blocks", ""))


@take_over.register
def _convnext_block(module: ConvNeXtBlock, scope: Scope) -> None:
    if module.gamma is not None:
        scope.move("gamma")
    take_over(module.conv_dw, scope.child("conv_dw", "dwconv"))
    take_over(module.norm, scope.child("norm"))
    for ours, public in (("fc1", "pwconv1"), ("fc2", "pwconv2")):
        layer = getattr(module.mlp, ours)
        scope.move(f"mlp.{ours}.weight", f"{public}.weight", layer.weight.shape[:2])
        scope.move(f"mlp.{ours}.bias", f"{public}.bias")


@take_over.register
def _flattened(module: FeatureDictNet, scope: Scope) -> None:
    """Timm's extractor: a top-level container's part `a.0` has become `a_0`."""
    convnext = any(isinstance(child, ConvNeXtStage) for child in module.values())
    for name, child in module.items():
        public = re.sub(r"_(\d+)$", r".\1", name)
        if convnext:
            public = re.sub(r"^stem\.", "downsample_layers.0.", public)
        take_over(child, scope.child(name, public))
