"""Arms for the speed tests, in a module that worker processes can import."""

import copy
import os
import signal
import time
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from bench import operators
from bench.operators.forms import Formed, traced


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


def compiled(name, form):
    """An operator in a form that numba compiles."""
    op = operators.create(name, in_channels=8, out_channels=8, kernel_size=3, resolution=(8, 8))
    fused = op.eval().fuse()
    fused.form = form
    return fused


def fuse(model):
    return model.fused() if hasattr(model, "fused") else model


class Detached(nn.Module):
    """Computes what another module does, with a gradient that stops half-way."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return {"maps": [(values + values.detach()) / 2 for values in self.model(x)["maps"]]}


class Branching(nn.Module):
    """Takes one way or the other by its input's values, which no exported graph can."""

    def forward(self, x):
        return x + 1 if float(x.mean()) > 0 else x - 1


class Forked(Formed):
    """A form that is slow, and one that is fast and leaves half of the gradient of its weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3, 1, 1))

    def forms(self, x):
        return ("plain",) if traced() else ("plain", "quick")

    def prepared(self, form, x):
        if form == "quick":
            return lambda x: x * (self.weight + self.weight.detach()) / 2
        return lambda x: (time.sleep(0.002), x * self.weight)[1]


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


class Lost(nn.Module):
    """Loses the device in its first call, as an illegal access on a GPU does."""

    def forward(self, x):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


class Mended(nn.Module):
    """Fails as long as a file is not there."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def forward(self, x):
        if not Path(self.file).exists():
            raise ValueError("not mended yet")
        return x + 1


class Scratch(nn.Module):
    """Takes memory that it gives back: in every call, and more in the first."""

    def __init__(self, every_mib, first_mib=0):
        super().__init__()
        self.every_mib, self.first_mib = every_mib, first_mib

    def forward(self, x):
        scratch = torch.ones((self.every_mib + self.first_mib) * 2**18)
        self.first_mib = 0
        return x + scratch[0]


class Importing(Scratch):
    """Needs a module that holds 128 MiB."""

    def __init__(self):
        super().__init__(1)
        import_module("speed_ballast")


def logged(label, file):
    """Build an arm, and say so in a file."""
    with Path(file).open("a") as log:
        log.write(f"{os.getpid()} {label}\n")
    return Block()


class Hanging(nn.Module):
    """Never returns."""

    def forward(self, x):
        signal.pause()
        return x


def dying():
    os.kill(os.getpid(), signal.SIGKILL)


def hanging():
    signal.pause()


def raising():
    raise RuntimeError("cannot be built")
