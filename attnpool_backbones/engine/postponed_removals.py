"""Removals of files that wait until what takes their place is there."""

from typing import Any

from attnpool_backbones.engine.stand_in import StandIn


class PostponedRemovals(StandIn):
    """A file backend that only notes what it is asked to remove.

    Args:
        backend: Does everything else, and the removals in the end.
    """

    stands_for = 'backend'

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.noted: dict[str, Any] = {}

    def remove(self, path: str) -> None:
        """Notes a file."""
        self.noted[path] = self.backend.remove

    def rmtree(self, path: str) -> None:
        """Notes a folder."""
        self.noted[path] = self.backend.rmtree

    def carry_out(self, keep: set[str]) -> None:
        """Removes what was noted, except the paths in ``keep``, which were written anew since."""
        for path, remove in self.noted.items():
            if path not in keep:
                remove(path)
