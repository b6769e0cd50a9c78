"""`python -m bench.cli`: the command."""

from bench.cli.main import main

main()
