"""ACNets: every 3×3 convolution of a host and the batch norm behind it become an ACB."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from timm.layers import ClassifierHead
from timm.models import build_model_with_cfg, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from bench.backbones.registration import configs, hosted, put
from bench.backbones.slots import find_slots
from bench.errors import UserError

default_cfgs = configs(
    {"ac_alexnet": {"first_conv": "features.0.conv", "classifier": "head.fc", "pool_size": (6, 6)}}
)


def _asymmetric(model: nn.Module, gamma_init: float) -> nn.Module:
    slots = [slot for slot in find_slots(model) if slot.spec.kernel_size == (3, 3)]
    put(model, "acb", [(slot, {"gamma_init": gamma_init}) for slot in slots])
    return model


def _network(
    name: str, host: str, pretrained: bool, *, gamma_init: float = 1.0, **kwargs: Any
) -> nn.Module:
    return _asymmetric(hosted(name, host, pretrained, kwargs), gamma_init)


@register_model
def ac_resnet18(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-18 of ACBs (ACNet, ICCV 2019)."""
    return _network("ac_resnet18", "resnet18", pretrained, **kwargs)


@register_model
def ac_resnet50(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """ResNet-50 of ACBs."""
    return _network("ac_resnet50", "resnet50", pretrained, **kwargs)


@register_model
def ac_vgg16(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """VGG-16 with batch norm, of ACBs."""
    return _network("ac_vgg16", "vgg16_bn", pretrained, **kwargs)


@register_model
def ac_mobilenet(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """MobileNet v1 of ACBs: the stem and the depthwise convolutions."""
    return _network("ac_mobilenet", "mobilenetv1_100", pretrained, **kwargs)


class ConvNorm(nn.Module):
    """3×3 convolution, batch norm, ReLU, and AlexNet's 3×3 s2 pooling where there is one."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, 2) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, Cin, H, W) to (N, Cout, H', W')."""
        out: Tensor = self.pool(self.act(self.norm(self.conv(x))))
        return out


class AlexNet(nn.Module):
    """AlexNet with 3×3 kernels throughout: the network on which ACB is shown.

    Channels 64, 192, 384, 256, 256; the first convolution has AlexNet's stride 4, its pooling
    follows layers 1, 2 and 5, and a batch norm each convolution. An image of 224 × 224 pixels
    ends on 6 × 6, from which two hidden layers of 4096 classify.

    Example:
        >>> import torch
        >>> AlexNet(num_classes=7)(torch.zeros(1, 3, 224, 224)).shape
        torch.Size([1, 7])
    """

    channels = (64, 192, 384, 256, 256)
    hidden = 4096

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_rate: float = 0.5,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        self.num_classes, self.drop_rate = num_classes, drop_rate
        self.num_features, self.head_hidden_size = self.channels[-1], self.hidden
        entering = (in_chans, *self.channels)
        self.features = nn.Sequential(
            *(
                ConvNorm(entering[i], entering[i + 1], 4 if i == 0 else 1, i in (0, 1, 4))
                for i in range(len(self.channels))
            )
        )
        self.feature_info = [
            {"num_chs": self.channels[i], "reduction": reduction, "module": f"features.{i}"}
            for i, reduction in ((0, 8), (1, 16), (4, 32))
        ]
        self.mlp = nn.Sequential(
            nn.AdaptiveAvgPool2d(6),
            nn.Flatten(),
            nn.Dropout(drop_rate),
            nn.Linear(self.channels[-1] * 36, self.hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(drop_rate),
            nn.Linear(self.hidden, self.hidden),
            nn.ReLU(inplace=True),
            nn.Unflatten(1, (self.hidden, 1, 1)),
        )
        self.head = ClassifierHead(self.hidden, num_classes, global_pool)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.head.fc  # type: ignore[no-any-return]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last linear layer; 0 classes return what entered it."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the maps behind the poolings `indices`, and the last map before them."""
        if output_fmt != "NCHW":
            raise UserError(f"`output_fmt` (={output_fmt!r}) must be 'NCHW'.")
        taken, last = feature_take_indices(len(self.feature_info), indices)
        ends = [int(str(info["module"]).split(".")[1]) for info in self.feature_info]
        maps = []
        for index, layer in enumerate(self.features):
            if stop_early and index > ends[last]:
                break
            x = layer(x)
            if index in ends and ends.index(index) in taken:
                maps.append(x)
        return maps if intermediates_only else (x, maps)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map an image (N, C, H, W) to the last map (N, 256, about H/32, about W/32)."""
        return self.features(x)  # type: ignore[no-any-return]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map the last map to logits, or with `pre_logits` to what enters the last layer."""
        x = self.mlp(x)
        return self.head(x, pre_logits=True) if pre_logits else self.head(x)  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, C, H, W) to logits (N, num_classes)."""
        return self.forward_head(self.forward_features(x))


@register_model
def ac_alexnet(pretrained: bool = False, *, gamma_init: float = 1.0, **kwargs: Any) -> nn.Module:
    """AlexNet of ACBs with channels 64, 192, 384, 256, 256."""
    model = build_model_with_cfg(
        AlexNet,
        "ac_alexnet",
        pretrained,
        feature_cfg={"out_indices": (0, 1, 2), "flatten_sequential": True},
        **kwargs,
    )
    return _asymmetric(model, gamma_init)
