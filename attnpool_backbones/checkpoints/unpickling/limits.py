"""How much a pickle may build."""

MAX_STEPS = 4_000_000
"""Steps of one pickle, and objects that its content would have if it were written out."""
MAX_DEPTH = 100
"""Levels of containers inside of each other."""
COPIES = 16
"""How many times the size of a file its tensors and arrays may have together, shared ones counted
each time; honest files share a few."""
SPARE_BYTES = 64 * 2**20
"""What any file may have beyond that."""
MAX_INTEGER = 2**256
"""The largest number, in value."""
BYTES_AN_ENTRY = 100
"""About what an entry of a container takes, in bytes."""
