"""UniRepLKNet: stem, four stages of large-kernel blocks, each operator handed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import torch
from timm.layers import DropPath, LayerNorm2d, NormMlpClassifierHead
from timm.models import build_model_with_cfg, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint_sequential

from bench.backbones.registration import configs
from bench.backbones.unireplk_block import UniRepLKBlock
from bench.errors import UserError
from bench.operators.base import Operator
from bench.operators.registry import create

MakeOperator = Callable[[int, int], Operator]


def block_operator(channels: int, kernel_size: int) -> Operator:
    """Return the paper's operator: dilated block for K >= 7 (LarK), else plain K×K (SmaK)."""
    name, bias = ("dwconv", False) if kernel_size < 7 else ("unireplk", True)
    return create(
        name, in_channels=channels, out_channels=channels, kernel_size=kernel_size, bias=bias
    )


def _halve(in_channels: int, out_channels: int) -> list[nn.Module]:
    """3×3 convolution of stride 2 with the norm AFTER it, unlike ConvNeXt's."""
    return [nn.Conv2d(in_channels, out_channels, 3, 2, 1), LayerNorm2d(out_channels)]


class Stage(nn.Module):
    """Halve the map (not in the first stage, where the stem does it), then blocks."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', ⌈H/2⌉, ⌈W/2⌉)."""
        x = self.downsample(x)
        if self.grad_checkpointing and self.training and torch.is_grad_enabled():
            out: Tensor = checkpoint_sequential(  # type: ignore[no-untyped-call]
                self.blocks, len(self.blocks), x, use_reentrant=False
            )
            return out
        return self.blocks(x)  # type: ignore[no-any-return]


class UniRepLKNet(nn.Module):
    """Large-kernel network for any modality that comes as (N, C', H, W).

    Paper: UniRepLKNet, CVPR 2024, arXiv 2311.15599. Stem 3×3 s2–LN–GELU–3×3 s2–LN, stages of
    `UniRepLKBlock` with 3×3 s2–LN between them, then mean–LN–linear.

    Args:
        in_chans: C', set by the modality: 3 for images.
        num_classes: of the classifier; 0 returns the pooled features.
        depths: blocks per stage.
        dims: channels per stage.
        kernel_sizes: K per stage and block.
        operator: makes a block's operator from its channels and K.
        layer_scale: initial γ of a block.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth, from 0 at the first block to this at the last.
        global_pool: timm's name of the pooling.
        feature_norms: a LayerNorm on each stage's features, as detectors and segmenters use it.

    Example:
        >>> net = UniRepLKNet(in_chans=1, num_classes=5, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32),
        ...                   kernel_sizes=((3,), (13,), (13,), (13,)))
        >>> net(torch.zeros(2, 1, 64, 40)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        depths: Sequence[int] = (3, 3, 27, 3),
        dims: Sequence[int] = (96, 192, 384, 768),
        kernel_sizes: Sequence[Sequence[int]] | None = None,
        operator: MakeOperator = block_operator,
        layer_scale: float = 1e-6,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        feature_norms: bool = False,
    ) -> None:
        super().__init__()
        sizes = stage_kernels(depths, (13,)) if kernel_sizes is None else kernel_sizes
        if [len(stage) for stage in sizes] != list(depths):
            raise UserError(
                f"`kernel_sizes` (={sizes!r}) must have one size per block: `depths` (={depths!r})."
            )
        self.num_classes, self.num_features = num_classes, dims[-1]
        self.head_hidden_size = dims[-1]
        half = dims[0] // 2
        self.stem = nn.Sequential(*_halve(in_chans, half), nn.GELU(), *_halve(half, dims[0]))
        rates = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        self.stages = nn.Sequential(
            *(
                Stage(
                    nn.Sequential(*_halve(dims[i - 1], dims[i])) if i else nn.Identity(),
                    [
                        UniRepLKBlock(
                            operator(dims[i], size),
                            layer_scale=layer_scale,
                            drop_path=DropPath(rate) if rate else None,
                        )
                        for size, rate in zip(stage, islice(rates, depths[i]), strict=True)
                    ],
                )
                for i, stage in enumerate(sizes)
            )
        )
        self.feature_info = [
            {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            for i, dim in enumerate(dims)
        ]
        self.feature_norms = nn.ModuleList(LayerNorm2d(d) for d in dims if feature_norms)
        self.head = NormMlpClassifierHead(
            dims[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate
        )
        self.apply(_start)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.head.fc  # type: ignore[no-any-return]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier; 0 classes return the pooled features."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training: recompute each block in the backward pass."""
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the maps of the stages `indices`, and the last map before them.

        The maps are normed where the network has `feature_norms`; `norm` is for timm's sake.
        """
        if output_fmt != "NCHW":
            raise UserError(f"`output_fmt` (={output_fmt!r}) must be 'NCHW'.")
        taken, last = feature_take_indices(len(self.stages), indices)
        x, maps = self.stem(x), []
        for index, stage in enumerate(self.stages):
            if stop_early and index > last:
                break
            x = stage(x)
            if index in taken:
                maps.append(self.feature_norms[index](x) if self.feature_norms else x)
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop the stages behind the last of `indices`, and the head; return the indices."""
        taken, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        self.feature_norms = self.feature_norms[: last + 1]
        if prune_head or last + 1 < len(self.feature_info):
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.num_classes = 0
            self.head = nn.Identity()
        return list(taken)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map an image (N, C', H, W) to the last map (N, dims[-1], ⌈H/32⌉, ⌈W/32⌉)."""
        return self.stages(self.stem(x))  # type: ignore[no-any-return]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the last map to logits, or with `pre_logits` to what enters the classifier."""
        return self.head(x, pre_logits=True) if pre_logits else self.head(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, C', H, W) to logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))


@torch.no_grad()
def _start(module: nn.Module) -> None:
    """Start as the paper does: weights normal with σ = 0.02, cut at ±2, biases 0."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def stage_kernels(depths: Sequence[int], third: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return K per stage and block: 3 in the first stage, 13 in the others, `third` cycled.

    Example:
        >>> stage_kernels((2, 1, 5, 1), (13, 3, 3))
        ((3, 3), (13,), (13, 3, 3, 13, 3), (13,))
    """
    patterns = ((3,), (13,), tuple(third), (13,))
    return tuple(tuple(islice(cycle(p), d)) for p, d in zip(patterns, depths, strict=True))


def create_network(variant: str, pretrained: bool, **arguments: Any) -> nn.Module:
    """Build a UniRepLKNet through timm; feature extractors get a norm per stage."""
    arguments.setdefault("feature_norms", bool(arguments.get("features_only", False)))
    model: nn.Module = build_model_with_cfg(
        UniRepLKNet,
        variant,
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **arguments,
    )
    return model


# Variant: depths, channels of the first stage, kernel sizes of the third stage (cycled).
_VARIANTS: dict[str, tuple[tuple[int, ...], int, tuple[int, ...]]] = {
    "a": ((2, 2, 6, 2), 40, (13,)),
    "f": ((2, 2, 6, 2), 48, (13,)),
    "p": ((2, 2, 6, 2), 64, (13,)),
    "n": ((2, 2, 8, 2), 80, (13,)),
    "t": ((3, 3, 18, 3), 80, (13, 3)),
    "s": ((3, 3, 27, 3), 96, (13, 3, 3)),
    "b": ((3, 3, 27, 3), 128, (13, 3, 3)),
    "l": ((3, 3, 27, 3), 192, (13, 3, 3)),
    "xl": ((3, 3, 27, 3), 256, (13, 3, 3)),
}
default_cfgs = configs(
    {f"unireplknet_{size}": {"first_conv": "stem.0", "classifier": "head.fc"} for size in _VARIANTS}
)


def _sized(size: str, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    depths, channels, third = _VARIANTS[size]
    paper_settings = {
        "depths": depths,
        "dims": tuple(channels * 2**i for i in range(4)),
        "kernel_sizes": stage_kernels(depths, third),
    }
    return create_network(f"unireplknet_{size}", pretrained, **{**paper_settings, **kwargs})


@register_model
def unireplknet_a(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """UniRepLKNet-A: 4.4 M parameters for inference."""
    return _sized("a", pretrained, kwargs)


@register_model
def unireplknet_f(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """UniRepLKNet-F: 6.2 M parameters for inference."""
    return _sized("f", pretrained, kwargs)


@register_model
def unireplknet_p(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """UniRepLKNet-P: 10.7 M parameters for inference."""
    return _sized("p", pretrained, kwargs)


@register_model
def unireplknet_n(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """UniRepLKNet-N: 18.3 M parameters for inference."""
    return _sized("n", pretrained, kwargs)


@register_model
def unireplknet_t(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """UniRepLKNet-T: 31.0 M parameters for inference."""
    return _sized("t", pretrained, kwargs)


@register_model
def unireplknet_s(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """UniRepLKNet-S: 55.6 M parameters for inference."""
    return _sized("s", pretrained, kwargs)


@register_model
def unireplknet_b(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """UniRepLKNet-B: 98.0 M parameters for inference."""
    return _sized("b", pretrained, kwargs)


@register_model
def unireplknet_l(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """UniRepLKNet-L: 218 M parameters for inference."""
    return _sized("l", pretrained, kwargs)


@register_model
def unireplknet_xl(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """UniRepLKNet-XL: 387 M parameters for inference."""
    return _sized("xl", pretrained, kwargs)
