"""Sizes, speed, attention maps, tables: what the command lines in ``tools/`` call."""
