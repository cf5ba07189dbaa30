"""An object in the place of another one, whose attributes it has."""

from collections.abc import Iterator
from typing import Any

__all__ = ['StandIn', 'layers']


class StandIn:
    """Gives the attributes of another object where it has none of its own.

    Attributes:
        stands_for: Name of the attribute that is the other object; said by the class.
    """

    stands_for: str

    def __getattr__(self, name: str) -> Any:
        if name == self.stands_for:  # asked for by copy before it is set
            raise AttributeError(name)
        return getattr(getattr(self, self.stands_for), name)


def layers(outermost: Any) -> Iterator[Any]:
    """Yields an object, what it stands for, what that stands for, and so on."""
    yield outermost
    while isinstance(outermost, StandIn):
        outermost = getattr(outermost, outermost.stands_for)
        yield outermost
