"""From a command line to the verb that it names; a user's mistake is one line and status 2."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import pkgutil
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from bench import __version__
from bench.cli.arguments import Verbs, split
from bench.errors import Failure, UserError, near
from bench.locks import Held

_HOST = re.compile(r"[\w.-]+(?=:\d+$)")
"""A host before its port, as an argument of the command."""
_CLASS = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
"""A class with its module, as Lightning has them."""
_PLACES = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
)
"""What is wrong with a place that cannot be written or read, and no fault of the code."""
WHOLE = "lightning"
"""A package that the extra `bench` brings, and none that is smaller."""


class _Parser(argparse.ArgumentParser):
    """argparse, with near matches for a mistyped command and short messages."""

    def error(self, message: str) -> NoReturn:
        if "invalid choice" in message and self._subparsers is not None:
            typed = message.split("'")[1]
            message = f"`command` (={typed!r}) is not known; {near(typed, commands())}"
        self.exit(2, f"{self.prog}: {message}\n")


def parser() -> tuple[argparse.ArgumentParser, Verbs]:
    """Return the parser of the command line, and its verbs."""
    whole = _Parser(
        prog="convboard",
        description="Which convolution operator should stand here?",
        epilog="To begin with: `convboard bench quick`, which needs no data, or "
        "`convboard compare resnet18 --data FOLDER`.",
    )
    whole.add_argument("--version", action="version", version=f"convboard {__version__}")
    verbs = Verbs(whole.add_subparsers(dest="command", required=True, metavar="command"))
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name != "__main__":  # it would run
            add = getattr(importlib.import_module(f"bench.cli.{module.name}"), "add", None)
            if add is not None:
                add(verbs)
    return whole, verbs


def commands() -> list[str]:
    """Return the names of all verbs.

    Example:
        >>> {"bench", "explain", "plan", "run", "site"} <= set(commands())
        True
    """
    return sorted(parser()[1].parsers)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; a user's mistake ends it with a few lines and status 2."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if find_spec(WHOLE) is None:
        needs = "the command needs more than is installed: pip install 'convboard[bench]'"
        print(f"convboard {__version__}: {needs}", file=sys.stderr)
        sys.exit(2)
    whole, _ = parser()
    if not given:
        whole.print_help(sys.stderr)
        sys.exit(2)
    options, rest = whole.parse_known_args(_of_lightning(given))
    if rest and options.command != "fit":
        whole.error(f"unrecognised arguments: {' '.join(rest)}")
    options.arguments = rest
    options.line = shlex.join(["convboard", *map(_without_folder, given)])
    if getattr(options, "data", None):
        if not options.data.is_dir():
            whole.error(f"`--data` (={str(options.data)!r}) must be a folder.")
        os.environ["CONVBOARD_DATA"] = str(options.data.absolute())
    if getattr(options, "trust", False):
        os.environ["CONVBOARD_TRUST"] = "1"
    if getattr(options, "plugin", None):
        from bench.local import PLUGINS

        files = [str(Path(file).absolute()) for file in options.plugin]
        os.environ[PLUGINS] = os.pathsep.join(files)
    hosts = [*split(getattr(options, "hosts", None) or ""), getattr(options, "host", None) or ""]
    if any(":" in host for host in hosts):
        from bench.config.trust import name

        name(hosts)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended as by Ctrl-C: it resumes
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without `·` or `→` shows `?`
    try:
        options.do(options)
    except UserError as error:
        print(f"convboard: {error}", file=sys.stderr)
        if os.environ.get("CONVBOARD_TRACEBACK"):
            raise
        sys.exit(2)
    except Failure as error:
        print(f"convboard: {error}", file=sys.stderr)
        sys.exit(1)
    except Held as error:
        words = f"another process holds {error}; once it has ended the same command goes on."
        print(f"convboard: {words}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(0)
    except OSError as error:
        told = error.errno in _PLACES and error.filename
        if not told or os.environ.get("CONVBOARD_TRACEBACK"):
            raise
        print(f"convboard: {error.filename}: {error.strerror}.", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)


def _of_lightning(given: Sequence[str]) -> list[str]:
    """Return a command line on which a class of `fit --data` is Lightning's, in its place.

    Example:
        >>> _of_lightning(["fit", "--data", "tasks.PoseData", "--data.batch_size=8"])
        ['fit', '--data.class_path=tasks.PoseData', '--data.batch_size=8']
        >>> _of_lightning(["run", "--data", "tasks.PoseData"])
        ['run', '--data', 'tasks.PoseData']
    """
    handed: list[str] = []
    for word in given:
        behind = handed[-1:] == ["--data"]
        name, _, value = f"--data={word}".partition("=") if behind else word.partition("=")
        is_class = name == "--data" and _CLASS.fullmatch(value) and not Path(value).is_dir()
        if given[0] == "fit" and is_class:
            word = f"--data.class_path={value}"
            if behind:
                handed.pop()
        handed.append(word)
    return handed


def _without_folder(argument: str) -> str:
    """Return an argument as records show it: without folders from the root, and without hosts.

    Example:
        >>> _without_folder("--runs=/home/me/runs"), _without_folder("configs/a.yaml")
        ('--runs=runs', 'configs/a.yaml')
        >>> _without_folder("--address=10.0.0.7:6379"), _without_folder("head:6379")
        ('--address=…:6379', '…:6379')
    """
    name, equals, value = argument.rpartition("=")
    value = _HOST.sub("…", value)
    return f"{name}{equals}{Path(value).name if Path(value).is_absolute() else value}"
