"""Public keys of the operators, training and fused forms."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from bench.checkpoints.transfer import Scope
from bench.operators.acb import ACB
from bench.operators.branches import Branch
from bench.operators.conv import Conv
from bench.operators.icconv import ICConv
from bench.operators.parc import CircularConv, Parc
from bench.operators.shift import Shiftwise
from bench.operators.shift_tables import draw
from bench.operators.unireplk import UniRepLK


@singledispatch
def take_over(module: nn.Module, scope: Scope) -> None:
    """Note what each tensor of `module` gets; by default the public tensor of the same name."""
    for name in (*module._parameters, *module._buffers):
        if scope.ours + name in scope.transfer.ours:  # a None and a passing buffer are not
            scope.move(name)
    for name, child in module.named_children():
        take_over(child, scope.child(name))


@take_over.register
def _norm(module: _NormBase, scope: Scope) -> None:
    for name in (*module._parameters, *module._buffers):
        # Older files lack the counter, on which no value depends.
        counter = name == "num_batches_tracked" and not scope.has(name)
        if scope.ours + name in scope.transfer.ours and not counter:
            scope.move(name)


@take_over.register
def _plain(module: Conv, scope: Scope) -> None:
    """A convolution, or what a block of several fuses to: its public name says of which."""
    fused = ("fused_conv", "lk_origin")
    name = next((name for name in fused if scope.has(f"{name}.")), "")
    take_over(module.conv, scope.child("conv", name))


@take_over.register
def _asymmetric(module: ACB, scope: Scope) -> None:
    for ours, public in (("square", "square"), ("vertical", "ver"), ("horizontal", "hor")):
        branch = scope.child(ours, "")
        branch.move("conv.weight", f"{public}_conv.weight")
        take_over(getattr(module, ours).norm, branch.child("norm", f"{public}_bn"))


@take_over.register
def _dilated(module: UniRepLK, scope: Scope) -> None:
    large = scope.child("large", "")
    large.move("conv.weight", "lk_origin.weight")
    take_over(module.large.norm, large.child("norm", "origin_bn"))
    for index, (k, r) in enumerate(module.branches):
        branch = module.dilated[index]
        assert isinstance(branch, Branch)
        place = scope.child(f"dilated.{index}", "")
        place.move("conv.weight", f"dil_conv_k{k}_{r}.weight")
        take_over(branch.norm, place.child("norm", f"dil_bn_k{k}_{r}"))


@take_over.register
def _circular(module: Parc, scope: Scope) -> None:
    for index, conv in enumerate(module.axes):
        assert isinstance(conv, CircularConv)
        letter = "H" if conv.dim == 2 else "W"
        public = _axis_scope(scope, letter, alone=len(module.axes) == 1).child(f"axes.{index}", "")
        channels, fan, length = conv.weight.shape
        line = (length, 1) if conv.dim == 2 else (1, length)
        public.move("weight", "gcc_conv.weight", (channels, fan, *line))
        if conv.position_bias is not None:
            public.move("position_bias")  # no public form has it: it is named as missing
        elif "bias" in conv._parameters:
            public.move("bias", "gcc_conv.bias")
        if isinstance(conv.pe, nn.Parameter):
            public.move("pe", "pe", (1, channels, *line))


def _axis_scope(scope: Scope, letter: str, *, alone: bool) -> Scope:
    """Find an axis: on its own, or named in place of the convolution or beside it."""
    if alone and scope.has("gcc_conv."):
        return scope
    for place in (scope, scope.parent()):
        for family in ("gcc", "parc"):
            if place.has(f"{family}_{letter}."):
                return place.child("", f"{family}_{letter}")
    return scope.child("", f"gcc_{letter}")


@take_over.register
def _shiftwise(module: Shiftwise, scope: Scope) -> None:
    """The paths, or the public merged form, which equals one path; the tables are drawn anew."""
    paths, rows, *size = module.weight.shape
    if scope.has("LoRA."):
        keys = ["LoRA.weight"]
    else:
        keys = [f"LoRAs.{path}.weight" for path in range(paths)]
    taken = [scope.transfer.take(scope.public + key, (rows, 1, *size)) for key in keys]
    weight = torch.zeros_like(scope.transfer.ours[f"{scope.ours}weight"])
    for path, value in enumerate(taken):
        if value is not None:
            weight[path] = value.squeeze(1)
    scope.set("weight", weight)
    norms = (("horizontal", "bn_lora1"), ("vertical", "bn_lora2"), ("centre", "bn_small"))
    for ours, public in norms:
        take_over(getattr(module, f"norm_{ours}"), scope.child(f"norm_{ours}", public))
    edges, convolved, blocks = module.horizontal.shape
    channels = module.spec.in_channels
    # Half a channel more than are convolved, so that rounding down gives just these.
    tables = draw(channels, 1 - (convolved + 0.5) / channels, blocks, edges)
    for name, table in tables._asdict().items():
        scope.set(name, table)
    every = torch.arange(channels)
    scope.set("convolved", every[~torch.isin(every, tables.ghosts)])


@take_over.register
def _inception(module: ICConv, scope: Scope) -> None:
    """One public convolution per dilation, in the order of the pattern."""
    weights, biases = [], []
    for index, strand in enumerate(module.layout):
        count, key = strand.stop - strand.start, f"{scope.public}conv_list.{index}"
        weights.append(scope.transfer.take(f"{key}.weight", (count, *module.weight.shape[1:])))
        if module.bias is not None:
            biases.append(scope.transfer.take(f"{key}.bias", (count,)))
    for name, parts in (("weight", weights), ("bias", biases)):
        whole = [part for part in parts if part is not None]
        if parts and len(whole) == len(parts):
            scope.set(name, torch.cat(whole))
