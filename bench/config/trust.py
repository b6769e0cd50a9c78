"""What a configuration may not do by itself: run code that lies in a file beside it.

Suites, configurations and the artifacts of a store come from anybody. Their YAML is data, classes
are found by name among what is installed, and checkpoints are read as weights only. What is left is
told here: Python files, hosts that are code, and files that other packages unpickle. They run only
where the person at the keyboard says so, by naming the host, by `--trust` or by the environment
variable CONVBOARD_TRUST=1, never because a file says so.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from bench.errors import ConfigError
from bench.host_code import UNPICKLED, is_code

VARIABLE = "CONVBOARD_TRUST"
NAMED = "CONVBOARD_HOSTS"
"""Environment variable: hosts that the command line names, so that their code may run, one a line;
processes that are started for it have it too."""


def name(hosts: Iterable[str]) -> None:
    """Trust the code of hosts that the person at the keyboard has named."""
    os.environ[NAMED] = "\n".join(sorted({*named(), *hosts}))


def named() -> set[str]:
    """Return the hosts that the command line names."""
    return {host for host in os.environ.get(NAMED, "").split("\n") if host}


def refuse_code(config: Mapping[str, Any]) -> None:
    """ConfigError if a configuration asks for code to be run and nobody has said that it may.

    Example:
        >>> refuse_code({"model": {"init_args": {"host": "resnet18", "trust_config": False}}})
    """
    if os.environ.get(VARIABLE) == "1":
        return
    for dotted, value in asked(config, named()):
        raise ConfigError(
            f"`{dotted.rpartition('init_args.')[2]}` (={value!r}) would run code: if you trust "
            f"this configuration and the file that it names, say --trust (or {VARIABLE}=1)."
        )


def asked(config: Mapping[str, Any], hosts: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield what in a configuration would run code: its dotted name, and the value.

    Args:
        config: in any form.
        hosts: those whose code may run.

    Example:
        >>> list(asked({"backbone": {"host": "net.py:Net", "pretrained": True}}, hosts=[]))
        [('backbone.host', 'net.py:Net')]
    """
    for dotted, value in _walk(config):
        key = dotted.rpartition(".")[2]
        code = key == "host" and is_code(value) and value not in hosts
        said = key in ("trust", "trust_config") and value
        if code or said or (key in UNPICKLED and value is not None):
            yield dotted, value


def _walk(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    values: list[tuple[str, Any]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        values.append((name, value))
        if isinstance(value, Mapping):
            values += _walk(value, f"{name}.")
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                if isinstance(inner, Mapping):
                    values += _walk(inner, f"{name}.{number}.")
    return values
