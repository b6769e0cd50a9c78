"""A host by name with an operator in its slots: what configurations build."""

from __future__ import annotations

import difflib
import inspect
from typing import Any

import timm
from torch import nn

from bench.backbones.swap import swap
from bench.errors import UserError
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
    features_only: bool = False,
    host_options: dict[str, Any] | None = None,
) -> nn.Module:
    """Create a timm model and put an operator into its slots.

    Args:
        host: a name that `timm.create_model` takes.
        operator: one of `bench.operators.names()`; None leaves the host as it is.
        options: the operator's options, and `kernel_size`, `groups`, `dilation` in place of the
            slots' (see `swap`).
        where: which slots; None for every slot that the operator can replace.
        mix: "pointwise" for a depthwise operator in dense slots.
        input_size: height and width, in pixels, of the images that the model will see.
        pretrained: load timm's weights; operators take over those that they contain.
        features_only: return the maps of all stages in place of logits.
        host_options: more arguments of `timm.create_model`, such as `num_classes`.

    Raises:
        ValueError: unknown host (with near matches), operator, option or key, arguments that the
            host does not take, or options without an operator.

    Example:
        >>> import torch
        >>> model = build("test_convnext", operator="dwconv", options={"kernel_size": 5},
        ...               input_size=(64, 64), host_options={"num_classes": 3})
        >>> model(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 3])
    """
    if operator is None:
        for argument, value in (("options", options), ("where", where), ("mix", mix)):
            if value:
                raise UserError(f"`{argument}` (={value!r}) needs an `operator`.")
    else:
        _check_options(operator, options or {})
    model = _host(host, pretrained, features_only, host_options or {})
    if operator is None:
        return model
    return swap(model, operator, where=where, input_size=input_size, mix=mix, **(options or {}))


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
    if ":" not in host and not timm.is_model(host):
        name = host.split(".")[0]
        close = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?" if close else "see timm.list_models()."
        )
        raise UserError(f"`host` (={host!r}) is no model of timm; {hint}")
    try:
        model: nn.Module = timm.create_model(
            host, pretrained=pretrained, features_only=features_only, **host_options
        )
    except (TypeError, RuntimeError, AssertionError, AttributeError) as error:
        raise UserError(
            f"`host` (={host!r}) does not take `features_only` (={features_only}) with "
            f"`host_options` (={host_options!r}): {error}"
        ) from error
    return model
