"""Where the bytes of a checkpoint are."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Source:
    """Where the bytes of a checkpoint are."""

    where: Path | bytes
    """A file, or all bytes."""

    def open(self) -> BinaryIO:
        """Opens it, at its beginning."""
        return BytesIO(self.where) if isinstance(self.where, bytes) else self.where.open('rb')

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.where) if isinstance(self.where, bytes) else self.where.stat().st_size
