"""The command `convboard`: one file a verb or a small group of verbs, found in this folder.

A file of verbs has `add(verbs)`, which describes them to the parser with `bench.cli.arguments`.
What a verb needs is imported when it runs, so that `convboard --help` takes no time.
"""

from bench.cli.main import main

__all__ = ["main"]
