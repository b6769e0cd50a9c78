"""Configurations: YAML files, what they may say, and the cells that they plan."""
