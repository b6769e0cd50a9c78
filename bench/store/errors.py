"""What can be wrong with a store that is no mistake of the user's words."""

from __future__ import annotations

from bench.errors import Failure


class StoreError(Failure):
    """The store cannot be used."""
