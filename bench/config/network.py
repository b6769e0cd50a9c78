"""What the network of a cell is built of: host, operator and slots, and the hashes of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.config.schema import HostConfig, OperatorConfig
from bench.errors import ConfigError
from bench.hashing import file_sha256
from bench.host_code import code_sha256, is_code
from bench.local import found


def backbone_of(
    host: HostConfig, operator: OperatorConfig, where: dict[str, Any] | None, size: Sequence[int]
) -> dict[str, Any]:
    """Return the arguments of `bench.backbones.build`; those that are None are left out.

    Args:
        host: network.
        operator: what stands in its slots.
        where: a selection of slots, for an operator that has none of its own.
        size: height and width of the images, in pixels.

    Example:
        >>> from bench.config.schema import load_host, load_operator
        >>> backbone_of(load_host("resnet18"), load_operator("parc"), None, (64, 64))["operator"]
        'parc'
    """
    whole_host = operator.operator is None
    arguments = {
        "host": host.host,
        "host_options": host.host_options or None,
        "pretrained": host.pretrained,
        "weights": host.weights,
        **hashes_of(host.host, host.weights),
        "operator": operator.operator,
        "options": options_of(operator) or None,
        "where": operator.where if operator.where is not None or whole_host else where,
        "mix": operator.mix,
        "input_size": list(size),
    }
    # as jsonargparse leaves them out
    return {name: value for name, value in arguments.items() if value is not None}


def hashes_of(host: str, weights: str | None) -> dict[str, str]:
    """Return the arguments of `bench.backbones.build` that say what a host's names stand for.

    They are the hash of a host's code (timm's hosts are known by their names) and that of a file
    of weights.

    Raises:
        ConfigError: there is no such file of weights.
    """
    code = code_sha256(host) if is_code(host) else None
    hashes = {} if code is None else {"host_sha256": code}
    if weights is not None:
        if not found(weights).is_file():
            raise ConfigError(f"`weights` (={weights!r}) must be a file.")
        hashes["weights_sha256"] = file_sha256(found(weights))[:16]
    return hashes


def options_of(operator: OperatorConfig) -> dict[str, Any]:
    """Return an operator's options, with the contents of the files that they name."""
    if operator.operator is None or not any(map(_may_name_a_file, operator.options.values())):
        return dict(operator.options)
    from bench import operators

    return dict(operators.get(operator.operator).with_files(operator.options))


def _may_name_a_file(value: Any) -> bool:
    return isinstance(value, str | Path)
