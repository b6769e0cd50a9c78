"""ParC networks: circular convolutions in the late blocks of four hosts."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.models import build_model_with_cfg, register_model
from timm.models.byobnet import (
    ByoBlockCfg,
    ByobNet,
    ByoModelCfg,
    LayerFn,
    register_block,
)
from torch import Tensor, nn

from bench.backbones.registration import configs, hosted, matching, put
from bench.operators.base import ConvSpec
from bench.operators.parc import CircularConv, Parc

default_cfgs = configs(
    {
        "parcnet_s": {
            "input_size": (3, 256, 256),
            "pool_size": (8, 8),
            "first_conv": "stem.conv",
            "classifier": "head.fc",
        }
    }
)


@register_model
def parc_convnext_xt(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ConvNeXt-XT with ParC in stage 3, blocks 6 to 8, and stage 4, block 2 (from 0)."""
    paper_settings = {"depths": (3, 3, 9, 3), "dims": (48, 96, 192, 384)}
    model = hosted("parc_convnext_xt", "convnext_tiny", pretrained, {**paper_settings, **kwargs})
    slots = matching(model, "stages?2.blocks.[678].conv_dw", "stages?3.blocks.2.conv_dw")
    put(model, "parc", [(slot, {}) for slot in slots])
    return model


@register_model
def parc_resnet50(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-50 with dense ParC for the 3×3 of layer3, blocks 3 to 5, and layer4, block 2."""
    model = hosted("parc_resnet50", "resnet50", pretrained, kwargs)
    slots = matching(model, "layer3.[345].conv2", "layer4.2.conv2")
    put(model, "parc", [(slot, {}) for slot in slots])
    return model


@register_model
def parc_mobilenetv2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """MobileNetV2 with ParC from block 2 on of the stages with 64, 96 and 160 channels.

    Only the first ParC block of each stage has a position embedding.
    """
    model = hosted("parc_mobilenetv2", "mobilenetv2_100", pretrained, kwargs)
    slots = matching(model, "blocks.[345].2.conv_dw", "blocks.3.3.conv_dw")
    put(model, "parc", [(s, {"position_embedding": s.name != "blocks.3.3.conv_dw"}) for s in slots])
    return model


class UnbiasedParc(Parc):
    """ParC without the bias, as ParC-Net-S has it: the norms around it shift instead."""

    def __init__(self, spec: ConvSpec, **options: Any) -> None:
        super().__init__(spec, **options)
        for conv in self._circular():
            zero = torch.zeros_like(conv.bias)
            del conv.bias
            conv.register_buffer("bias", zero)

    def params(self) -> int:
        """As `parc`, less the bias: C per axis."""
        biased = [conv for conv in self._circular() if conv.position_bias is None]
        return super().params() - sum(len(conv.bias) for conv in biased)

    def _circular(self) -> list[CircularConv]:
        return [conv for conv in self.axes if isinstance(conv, CircularConv)]


class NormedSqueezeExcite(nn.Module):
    """x · hardsigmoid(BN(1×1 hardswish(BN(1×1 mean(x))))), 1×1 convolutions without biases."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        inner = channels // reduction
        self.gate = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.Hardswish(),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        out: Tensor = x * self.gate(x.mean((2, 3), keepdim=True))
        return out


class ParcBlock(nn.Module):
    """ParC-Net's block, which takes the place of a transformer's.

    Paper: ParC-Net, ECCV 2022, arXiv 2203.03952. The first half of the channels runs along the
    height, then along the width, the second half the other way round:

        z = x + [ParC_w(ParC_h(BN(x₁))) | ParC_h(ParC_w(BN(x₂)))],
        y = z + SE(dropout(1×1 hardswish(1×1 BN(z)))).

    Args:
        channels: C, even.
        size: side of the map that the tables are stored at.
        position_embedding: whether the circular convolutions have one.
        expansion: inner channels of the 1×1 convolutions per channel.
        drop: dropout behind them.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        position_embedding: bool,
        expansion: int = 2,
        drop: float = 0.1,
    ) -> None:
        super().__init__()
        half = channels // 2
        self.norms = nn.ModuleList(nn.BatchNorm2d(half) for _ in range(2))
        spec = ConvSpec.make(in_channels=half, out_channels=half, groups=half, resolution=size)
        self.axes = nn.ModuleList(
            nn.Sequential(
                *(UnbiasedParc(spec, axis=a, position_embedding=position_embedding) for a in axes)
            )
            for axes in (("height", "width"), ("width", "height"))
        )
        self.mix = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, expansion * channels, 1),
            nn.Hardswish(),
            nn.Conv2d(expansion * channels, channels, 1),
            nn.Dropout(drop),
            NormedSqueezeExcite(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        halves = zip(x.chunk(2, 1), self.norms, self.axes, strict=True)
        x = x + torch.cat([axes(norm(part)) for part, norm, axes in halves], 1)
        out: Tensor = x + self.mix(x)
        return out


class ParcStage(nn.Module):
    """ParC-Net's answer to a MobileViT block: widen, ParC blocks, narrow, fuse with the input."""

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        *,
        stride: int,
        dilation: tuple[int, int],
        layers: LayerFn,
        width: int,
        depth: int,
        size: int,
        drop: float = 0.1,
        **_: Any,
    ) -> None:
        super().__init__()
        assert stride == 1
        groups = math.gcd(in_chs, width)
        self.widen = nn.Sequential(
            layers.conv_norm_act(in_chs, width, 3, groups=groups, dilation=dilation[0]),
            nn.Conv2d(width, width, 1, bias=False),
        )
        self.blocks = nn.Sequential(
            *(ParcBlock(width, size, position_embedding=i == 0, drop=drop) for i in range(depth)),
            nn.BatchNorm2d(width),
        )
        self.narrow = layers.conv_norm_act(width, out_chs, 1, groups=groups)
        self.fusion = layers.conv_norm_act(out_chs + in_chs, out_chs, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        narrow = self.narrow(self.blocks(self.widen(x)))
        out: Tensor = self.fusion(torch.cat([narrow, x], 1))
        return out


register_block("parcnet", ParcStage)


def _mobile(depth: int, channels: int, stride: int) -> ByoBlockCfg:
    """MobileNetV2's blocks as MobileViT has them."""
    kwargs = {"bottle_in": True, "linear_out": True}
    return ByoBlockCfg("bottle", d=depth, c=channels, s=stride, gs=1, br=4.0, block_kwargs=kwargs)


def _parc(channels: int, width: int, depth: int, size: int) -> tuple[ByoBlockCfg, ByoBlockCfg]:
    kwargs = {"width": width, "depth": depth, "size": size}
    return _mobile(1, channels, 2), ByoBlockCfg(
        "parcnet", d=1, c=channels, s=1, block_kwargs=kwargs
    )


# MobileViT-S, its transformers replaced. Tables are stored at the sizes of a 256 px image.
_PARCNET_S = ByoModelCfg(
    blocks=(
        _mobile(1, 32, 1),
        _mobile(3, 64, 2),
        _parc(96, 192, 2, 32),
        _parc(128, 256, 4, 16),
        _parc(160, 320, 3, 8),
    ),
    stem_chs=16,
    stem_type="3x3",
    stem_pool="",
    downsample="",
    act_layer="silu",
    num_features=640,
)


@register_model
def parcnet_s(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ParC-Net-S: MobileViT-S with ParC blocks for transformers, 5.0 M parameters."""
    model: nn.Module = build_model_with_cfg(
        ByobNet,
        "parcnet_s",
        pretrained,
        model_cfg=_PARCNET_S,
        feature_cfg={"flatten_sequential": True},
        **{"drop_rate": 0.2, **kwargs},
    )
    return model
