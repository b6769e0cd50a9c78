"""Running: one cell, a suite of them, their speed, a study, a search."""
