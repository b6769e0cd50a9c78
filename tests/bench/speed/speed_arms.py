"""Arms for the speed tests, in a module that worker processes can import."""

import copy
import os
import signal
from pathlib import Path

import torch
from torch import nn


class Block(nn.Module):
    """conv → BN with a fused form; `right=False` leaves the norm's shift out of it."""

    def __init__(self, kernel_size=3, right=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.right = right

    def forward(self, x):
        return {"maps": [self.norm(self.conv(x))]}

    def fused(self):
        fused = copy.deepcopy(self)
        fused.conv = nn.utils.fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
        if not self.right:
            fused.conv.bias = None
        fused.norm = nn.Identity()
        return fused


def fuse(model):
    return model.fused() if hasattr(model, "fused") else model


class Deciding(Block):
    """Returns a decision, which no rounding may change, of maps that are compared."""

    def compared(self, x):
        return super().forward(x)["maps"]

    def forward(self, x):
        return [{"chosen": "above" if float(x.mean()) > 0 else "below", "mean": float(x.mean())}]


class Greedy(nn.Module):
    """Asks for more memory than any machine has, from batch 2 on."""

    def forward(self, x):
        if x.shape[0] > 1:
            torch.empty(1 << 60)
        return x


class Failing(nn.Module):
    """Works `calls` times, then raises."""

    def __init__(self, calls):
        super().__init__()
        self.calls = calls

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise ValueError("out of calls")
        return x


class Dying(nn.Module):
    """Kills its process, always or (with a marker file) once."""

    def __init__(self, marker=None):
        super().__init__()
        self.marker = marker

    def forward(self, x):
        if self.marker is None or not Path(self.marker).exists():
            if self.marker is not None:
                Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x


class Hanging(nn.Module):
    """Never returns."""

    def forward(self, x):
        signal.pause()
        return x


def raising():
    raise RuntimeError("cannot be built")
