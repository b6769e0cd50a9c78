"""A module that takes memory as it is imported."""

BALLAST = bytearray(b"\1") * 2**27
