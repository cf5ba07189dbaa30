"""Reads the pickle inside of a checkpoint as data: builds what training files hold, calls nothing.

A pickle is a program for a small stack machine. This one has the machine's words for plain data
and tensors; every name the pickle asks for is looked up in one table of functions of this package,
so no word of a file ever reaches Python's own objects. What it builds is bounded: in the number of
steps, in bytes beside those of the file, in depth, and in how large it would be written out.
"""

from attnpool_backbones.checkpoints.unpickling.limits import MAX_DEPTH, MAX_STEPS
from attnpool_backbones.checkpoints.unpickling.machine import PickleReader
from attnpool_backbones.checkpoints.unpickling.stand_ins import Storage, StorageSource

__all__ = ['MAX_DEPTH', 'MAX_STEPS', 'PickleReader', 'Storage', 'StorageSource']
