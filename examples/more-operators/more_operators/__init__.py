"""Four operators that ConvBoard finds by entry point: one file each."""
