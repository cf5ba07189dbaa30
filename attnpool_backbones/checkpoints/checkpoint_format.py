"""What is to be known of one checkpoint format."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CheckpointFormat:
    """A naming scheme in which weights of one of this package's backbones are published.

    All patterns are regular expressions that match from the start of a name (``re.match``).
    """

    name: str
    """Who writes such files, e.g. ``'PatchConvNet of facebookresearch/deit'``."""
    backbone: str
    """Registered type of the backbone that takes the weights, e.g. ``'PatchConvNet'``."""
    signature: tuple[str, ...]
    """A file has this format if each of these patterns matches one of its names."""
    convert: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    """Renames and reshapes into this package's names and layouts, without knowing a model. Names
    that no backbone has (e.g. the classifier) are kept as they are."""
    leftovers: tuple[str, ...] = ()
    """Converted names that a dense backbone may leave unused: classifier, final norm, pooling."""
    fresh: tuple[str, ...] = ()
    """Names of the backbone that files of this format may lack, if they lack all of them."""
    names: tuple[str, ...] = (r'stem\.', r'stages\.', r'blocks\.', r'out_norms\.')
    """Converted names that the backbone has; only the report of a file conversion needs them."""

    def matches(self, names: Iterable[str]) -> bool:
        """Tells whether a file with these names has this format."""
        names = list(names)
        return all(any(re.match(p, name) for name in names) for p in self.signature)

    def is_known(self, name: str) -> bool:
        """Tells whether the converted name belongs to the backbone or is a leftover."""
        return self.is_leftover(name) or any(re.match(p, name) for p in self.names)

    def is_fresh(self, name: str) -> bool:
        """Tells whether a file may lack the name, with all others of the kind."""
        return any(re.match(p, name) for p in self.fresh)

    def is_leftover(self, name: str) -> bool:
        """Tells whether a dense backbone may leave the converted name unused."""
        return any(re.match(p, name) for p in self.leftovers)
