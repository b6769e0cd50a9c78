"""A host by name with an operator in its slots: what configurations build."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Mapping
from typing import Any

import timm
from timm.models import get_pretrained_cfg
from torch import nn

from bench.backbones.hosts import build_code
from bench.backbones.recipe import note_build
from bench.backbones.swap import swap
from bench.backbones.weights import load_weights
from bench.errors import Failure, UserError, near, require
from bench.host_code import code_sha256, is_code
from bench.operators.base import pair
from bench.operators.registry import get


def build(
    host: str,
    *,
    operator: str | None = None,
    options: dict[str, Any] | None = None,
    where: dict[str, Any] | None = None,
    mix: str | None = None,
    input_size: tuple[int, int] = (224, 224),
    pretrained: bool = False,
    weights: str | None = None,
    weights_sha256: str | None = None,
    features_only: bool = False,
    host_options: dict[str, Any] | None = None,
    host_sha256: str | None = None,
) -> nn.Module:
    """Create a network and put an operator into its slots.

    Args:
        host: a name that `timm.create_model` takes, or code that makes a network:
            `package.module:callable` or `path/to/file.py:callable`.
        operator: one of `bench.operators.names()`; None leaves the host as it is.
        options: the operator's options, and `kernel_size`, `groups`, `dilation` in place of the
            slots' (see `swap`).
        where: which slots; None for every slot that the operator can replace.
        mix: "pointwise" for a depthwise operator in dense slots.
        input_size: height and width, in pixels, of the images that the model will see.
        pretrained: load timm's weights; operators take over those that they contain.
        weights: file of the host's weights, .safetensors or torch's, read as weights only; taken
            as `pretrained` ones are. A classifier of other classes is left out.
        weights_sha256: hash that the file must have; None for any.
        features_only: return the maps of all stages in place of logits.
        host_options: more arguments of `timm.create_model`, such as `num_classes`, or of the
            callable.
        host_sha256: hash that the callable's code must have (`bench.host_code.code_sha256`);
            None for any.

    Raises:
        UserError: unknown host (with near matches), operator, option or key, arguments that the
            host does not take, or options without an operator. What fails though the arguments
            are right keeps its own error.
        Failure: weights that cannot be downloaded.

    Example:
        >>> import torch
        >>> model = build("test_convnext", operator="dwconv", options={"kernel_size": 5},
        ...               input_size=(64, 64), host_options={"num_classes": 3})
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 3])
    """
    arguments = {name: value for name, value in locals().items() if value is not None}
    pair("input_size", input_size, 1)
    if operator is None:
        for argument, value in (("options", options), ("where", where), ("mix", mix)):
            if value:
                raise UserError(f"`{argument}` (={value!r}) needs an `operator`.")
    else:
        _check_options(operator, options or {})
    if pretrained and weights is not None:
        raise UserError(f"`weights` (={weights!r}) must be left out with `pretrained`.")
    if is_code(host):
        if host_sha256 is not None and code_sha256(host) != host_sha256:
            raise UserError(f"`host` (={host!r}): its code is another than it was; plan it again.")
        model = build_code(
            host,
            features_only=features_only,
            pretrained=pretrained,
            options=host_options or {},
            input_size=pair("input_size", input_size, 1),
        )
    else:
        model = _host(host, pretrained, features_only, host_options or {})
    if weights is not None:
        load_weights(model, weights, weights_sha256)
    if operator is not None:
        swap(model, operator, where=where, input_size=input_size, mix=mix, **(options or {}))
    note_build(model, arguments)
    return model


def _check_options(operator: str, options: dict[str, Any]) -> None:
    get(operator)
    for option in inspect.signature(swap).parameters:
        if option in options:
            raise UserError(
                f"`options` (={options!r}) are the operator's; `{option}` is none of them."
            )


def _host(
    host: str, pretrained: bool, features_only: bool, host_options: dict[str, Any]
) -> nn.Module:
    _check_host(host, pretrained)
    mapping = isinstance(host_options, Mapping)
    require("host_options", host_options, mapping, "a mapping of arguments of timm.create_model")
    for argument in ("pretrained", "features_only"):
        if argument in host_options:
            raise UserError(
                f"`host_options` (={host_options!r}) must leave `{argument}` to the argument of "
                "that name."
            )
    try:
        return _create(host, pretrained, features_only, host_options)
    except UserError:
        raise
    except Exception as error:
        mistake = _mistake(host, features_only, host_options, error)
        if mistake is not None:
            raise UserError(mistake) from error
        if pretrained and _works(host, features_only, host_options):
            first = str(error).strip().partition("\n")[0]
            raise Failure(
                f"the weights of {host!r} cannot be fetched: {type(error).__name__}: {first}; "
                "`weights` reads them from a file."
            ) from error
        raise


def _create(
    host: str, pretrained: bool, features_only: bool, host_options: Mapping[str, Any]
) -> nn.Module:
    model: nn.Module = timm.create_model(
        host, pretrained=pretrained, features_only=features_only, **host_options
    )
    return model


def _works(host: str, features_only: bool, host_options: Mapping[str, Any]) -> bool:
    try:
        _create(host, False, features_only, host_options)
    except Exception:
        return False
    return True


def _check_host(host: str, pretrained: bool) -> None:
    require("host", host, isinstance(host, str), "the name of a model of timm")
    if ":" in host:  # one of timm's places, such as hf-hub:owner/name
        return
    name, _, tag = host.partition(".")
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?" if close else "see timm.list_models()."
        )
        raise UserError(f"`host` (={host!r}) is no model of timm; {hint}")
    try:
        get_pretrained_cfg(host)
    except RuntimeError:  # no such tag
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*")]
        hint = near(tag, tags) if tags else "it has none."
        raise UserError(f"`host` (={host!r}): {tag!r} names no weights of it; {hint}") from None
    if pretrained and not timm.is_model_pretrained(name):
        raise UserError(
            f"`pretrained` (=True): timm has no weights of {name!r}; create it without (the public "
            "ones of the papers are read by bench.checkpoints.load_official)."
        )


def _mistake(
    host: str, features_only: bool, host_options: Mapping[str, Any], error: Exception
) -> str | None:
    """Say which argument made timm fail: the one without which it does not."""
    if _works(host, features_only, host_options) or not _works(host, False, {}):
        return None  # the weights are at fault, or the host
    if not _works(host, features_only, {}):
        return f"`features_only` (=True) must be false: {host!r} gives no maps ({error})."
    unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if unknown is None or unknown[1] not in host_options:
        return f"`host_options` (={host_options!r}) must be what {host!r} takes: {error}"
    parameters = inspect.signature(type(_create(host, False, False, {}))).parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    return (
        f"`host_options` (={host_options!r}): {host!r} does not take `{unknown[1]}`; "
        f"{near(unknown[1], known)}"
    )
