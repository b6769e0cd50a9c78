"""Any network as a backbone: its own output replaced by classes, or its maps handed out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from timm.models import FeatureInfo
from torch import Tensor, nn

from bench.backbones.probe import blank_forward
from bench.errors import UserError

STRIDES = (2, 4, 8, 16, 32)
_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


class Classifier(nn.Module):
    """A network whose last layer, a linear one or a 1×1 convolution, is made anew for classes.

    A network whose output is no such layer's gets one behind it; maps are averaged first.

    Args:
        net: takes (N, 3, H, W), returns (N, C) or (N, C, H', W').
        last: name of the layer of `net` whose output is the network's; None if there is none.
        channels: C of the network's output.
    """

    def __init__(self, net: nn.Module, last: str | None, channels: int) -> None:
        super().__init__()
        self.net = net
        self.last = last
        self.channels = self.num_classes = channels
        self.head: nn.Module = nn.Identity()

    def reset_classifier(self, num_classes: int) -> None:
        """Make the last layer anew, for as many classes."""
        self.num_classes = num_classes
        if self.last is None:
            self.head = nn.Linear(self.channels, num_classes)
            return
        old: Any = self.net.get_submodule(self.last)
        new: nn.Module
        if isinstance(old, nn.Linear):
            new = nn.Linear(old.in_features, num_classes, old.bias is not None)
        else:
            new = nn.Conv2d(old.in_channels, num_classes, 1, bias=old.bias is not None)
        parent, _, name = self.last.rpartition(".")
        self.net.get_submodule(parent)._modules[name] = new

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to (N, classes)."""
        out: Tensor = self.net(images)
        if out.dim() == 4:
            out = out.mean((2, 3))
        logits: Tensor = self.head(out)
        return logits


def classifier(net: nn.Module, input_size: tuple[int, int]) -> nn.Module:
    """Return a network as one with timm's `reset_classifier(num_classes)`.

    Raises:
        UserError: its output is no tensor (N, C) or (N, C, H, W).

    Example:
        >>> import torch
        >>> own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        ...                     nn.Linear(4, 10))
        >>> model = classifier(own, (32, 32))
        >>> model.reset_classifier(3)
        >>> model(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 3])
    """
    if callable(getattr(net, "reset_classifier", None)):
        return net
    outputs: list[tuple[str, nn.Module, Any]] = []
    whole = _outputs(net, input_size, lambda name, module, out: outputs.append((name, module, out)))
    if not isinstance(whole, Tensor) or whole.dim() not in (2, 4):
        kind = list(whole.shape) if isinstance(whole, Tensor) else type(whole).__name__
        raise UserError(
            f"`host` (a {type(net).__name__}) must return a tensor (N, C) or (N, C, H, W) to "
            f"classify by, not {kind}; for boxes or masks its maps are taken."
        )
    last = None
    for name, module, out in reversed(outputs):
        if isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
        ):
            # a view of it, flattened or pooled to one position, is the same layer's output
            same = out.data_ptr() == whole.data_ptr() and out.shape[1] == whole.shape[1]
            last = name if same else None
            break
    return Classifier(net, last, whole.shape[1])


class _Seen(Exception):
    """Ends a forward pass: the last map that is wanted is there."""


class Features(nn.Module):
    """The maps of a network, one for each stride, finest first; what comes behind is left out.

    Args:
        net: takes (N, 3, H, W).
        names: modules of `net` whose outputs are the maps, in the order in which they end.
        channels: of the maps.
        strides: of the maps.

    Attributes:
        early: whether a forward pass is cut off behind the last map; exporters cannot follow that.
    """

    def __init__(
        self, net: nn.Module, names: Sequence[str], channels: Sequence[int], strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.net = net
        self.names = list(names)
        self.early = True
        info = [
            {"num_chs": c, "reduction": s, "module": n}
            for n, c, s in zip(names, channels, strides, strict=True)
        ]
        self.feature_info = FeatureInfo(info, tuple(range(len(info))))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (N, 3, H, W) to maps (N, C, H / stride, W / stride)."""
        maps: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[Any, Any, Tensor], None]:
            def hook(module: Any, args: Any, out: Tensor) -> None:
                maps[name] = out
                if self.early and name == self.names[-1]:
                    raise _Seen

            return hook

        # by name and at each call: a copy of this network has modules of its own
        handles = [
            self.net.get_submodule(name).register_forward_hook(keep(name)) for name in self.names
        ]
        try:
            self.net(images)
        except _Seen:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return [maps[name] for name in self.names]


def features(net: nn.Module, input_size: tuple[int, int]) -> Features:
    """Return a network as its maps: of each stride the last, found by one forward pass.

    What runs behind the coarsest map alone, such as a classifier, is left out.

    Raises:
        UserError: it makes no maps at strides of 2, 4, 8, 16 or 32.

    Example:
        >>> own = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1))
        >>> features(own, (32, 32)).feature_info.reduction()
        [2, 4]
    """
    maps = maps_of(net, input_size)
    model = Features(
        net, [m.module for m in maps], [m.channels for m in maps], [m.stride for m in maps]
    )
    _drop_the_rest(model, input_size)
    model.early = False
    try:
        blank_forward(model, input_size)
    except Exception:  # what is left behind the last map does not run without what was dropped
        model.early = True
    return model


class MapOf(NamedTuple):
    """A map that a network makes on its way: the module whose output it is, its C, its stride."""

    module: str
    channels: int
    stride: int


def maps_of(net: nn.Module, input_size: tuple[int, int]) -> list[MapOf]:
    """Return the maps of a network, finest first, of each stride the last; by a blank image.

    Raises:
        UserError: it makes none at strides of 2, 4, 8, 16 or 32.

    Example:
        >>> own = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1))
        >>> [(m.module, m.stride) for m in maps_of(own, (32, 32))]
        [('1', 2), ('2', 4)]
    """
    # on a larger image a map that was pooled to one position is not taken for one of stride 32
    try:
        found = _maps(net, (2 * input_size[0], 2 * input_size[1]))
    except Exception:  # made for one size
        found = _maps(net, input_size)
    if not found:
        raise UserError(
            f"`host` (a {type(net).__name__}) must make maps (N, C, H, W) at strides of 2, 4, 8, "
            "16 or 32; it makes none."
        )
    order = sorted(found, key=lambda stride: found[stride][2])
    if order != sorted(order):  # a decoder, whose finer maps come later: as far as it goes down
        order = [s for i, s in enumerate(order) if all(s > before for before in order[:i])]
    return [MapOf(found[stride][0], found[stride][1], stride) for stride in order]


def _maps(net: nn.Module, size: tuple[int, int]) -> dict[int, tuple[str, int, int]]:
    """Return stride → name, channels and place in the order of the last map of that stride.

    Outer modules go before those inside them: a stage's output before a layer of the next one.
    """
    ended: list[tuple[str, nn.Module, Any]] = []
    _outputs(net, size, lambda name, module, out: ended.append((name, module, _shape(out))))
    calls = Counter(name for name, _, _ in ended)
    found: dict[int, tuple[str, int, int]] = {}
    for place, (name, module, shape) in enumerate(ended):
        if len(shape) != 4 or not name or calls[name] > 1 or isinstance(module, _POOLS):
            continue
        for stride in STRIDES:
            same = shape[2:] == tuple(math.ceil(side / stride) for side in size)
            inner = stride in found and name.count(".") > found[stride][0].count(".")
            if same and not inner:
                found[stride] = (name, shape[1], place)
    return found


def _shape(out: Any) -> tuple[int, ...]:
    return tuple(out.shape) if isinstance(out, Tensor) else ()


def _outputs(
    net: nn.Module, size: tuple[int, int], note: Callable[[str, nn.Module, Any], None]
) -> Any:
    """Run a network on a blank image; tell of every module's output; return its own."""
    handles, whole = [], []

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, args, out: note(name, module, out)

    for name, module in net.named_modules():
        handles.append(module.register_forward_hook(hook(name)))
    handles.append(net.register_forward_hook(lambda module, args, out: whole.append(out)))
    try:
        blank_forward(net, size)
    finally:
        for handle in handles:
            handle.remove()
    return whole[-1]


def _drop_the_rest(model: Features, size: tuple[int, int]) -> None:
    """Put nothing in the place of what comes behind the last map, so that it counts for nothing.

    That stands in modules which have begun when the last map is there and have not ended. Inside of
    one that has ended all stays: it may use the weights of a module that it never calls.
    """
    began: set[nn.Module] = set()
    ended: set[nn.Module] = set()
    handles = []
    for module in model.net.modules():
        handles.append(module.register_forward_pre_hook(lambda module, args: began.add(module)))
        handles.append(module.register_forward_hook(lambda module, args, out: ended.add(module)))
    try:
        blank_forward(model, size)
    finally:
        for handle in handles:
            handle.remove()
    dropped = []
    for parent in _cut_off(model.net, ended):
        for name, child in list(parent._modules.items()):
            if child is not None and not any(module in began for module in child.modules()):
                dropped.append((parent, name, child))
                parent._modules[name] = nn.Identity()
    try:
        blank_forward(model, size)
    except Exception:  # a map hangs on what no module is called for
        for parent, name, child in dropped:
            parent._modules[name] = child


def _cut_off(module: nn.Module, ended: Collection[nn.Module]) -> Iterator[nn.Module]:
    """Yield a module and those in it that have not ended, nor stand in one that has."""
    if module not in ended:
        yield module
        for child in module.children():
            yield from _cut_off(child, ended)
