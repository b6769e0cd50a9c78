"""What the data of all tasks share: generated sets, splits, order, cache, checked files."""
