"""Hosts that are no models of timm: any callable that returns a network, named as code.

`package.module:callable` is imported; `folder/net.py:callable` is read from its file. Both run
code, so a configuration that names one is refused unless it is trusted (`bench.config.trust`).
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from bench.backbones.wrapped import classifier, features
from bench.errors import UserError, near
from bench.host_code import file_at, look_here


def build_code(
    host: str,
    *,
    features_only: bool,
    pretrained: bool,
    options: Mapping[str, Any],
    input_size: tuple[int, int],
) -> nn.Module:
    """Return the network that a callable makes, as a classifier or as a pyramid of feature maps.

    Args:
        host: `package.module:callable`, or `path/to/file.py:callable`.
        features_only: return the network's maps, one for each stride, finest first.
        pretrained: hand `pretrained=True` on, or torchvision's `weights="DEFAULT"`.
        options: arguments of the callable.
        input_size: height and width of the images, in pixels.

    Raises:
        UserError: no such module, file or callable, arguments that it does not take, or something
            that is no network of images.

    Example:
        >>> model = build_code("torchvision.models:resnet18", features_only=True, options={},
        ...                    pretrained=False, input_size=(64, 64))
        >>> model.feature_info.reduction(), model.feature_info.channels()
        ([2, 4, 8, 16, 32], [64, 64, 128, 256, 512])
    """
    make = _callable(host)
    parameters = inspect.signature(make).parameters
    arguments = dict(options)
    if pretrained:
        asked = {"pretrained": True, "weights": "DEFAULT"}
        known = next((name for name in asked if name in parameters), None)
        if known is None:
            raise UserError(
                f"`pretrained` (=True): {host!r} takes neither `pretrained` nor `weights`; "
                "--weights FILE reads weights from a file."
            )
        arguments.setdefault(known, asked[known])
    try:
        inspect.signature(make).bind(**arguments)
    except TypeError as error:
        raise UserError(
            f"`host_options` (={dict(options)!r}) must be what {host!r} takes: {error}."
        ) from None
    network = make(**arguments)
    if not isinstance(network, nn.Module):
        raise UserError(
            f"`host` (={host!r}) must return a torch.nn.Module, not a {type(network).__name__}."
        )
    return features(network, input_size) if features_only else classifier(network, input_size)


def _callable(host: str) -> Callable[..., Any]:
    place, _, name = host.rpartition(":")
    module = _from_file(str(file_at(host, place).resolve())) if place.endswith(".py") else None
    module = module or _imported(host, place)
    made = getattr(module, name, None)
    if not callable(made):
        public = [n for n, value in vars(module).items() if callable(value) and n[0] != "_"]
        raise UserError(
            f"`host` (={host!r}): {place} has no callable {name!r}; {near(name, public)}"
        )
    return made  # type: ignore[no-any-return]


@functools.cache
def _from_file(path: str) -> ModuleType:
    """Run a file as a module, once; what lies beside it can be imported by it."""
    folder, stem = str(Path(path).parent), Path(path).stem
    if folder not in sys.path:
        sys.path.append(folder)
    name = f"convboard_host_{stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _imported(host: str, place: str) -> ModuleType:
    look_here()
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # what the module itself imports is missing
        raise UserError(
            f"`host` (={host!r}): there is no module {error.name!r}; a file is named as "
            "path/to/net.py:callable."
        ) from None
