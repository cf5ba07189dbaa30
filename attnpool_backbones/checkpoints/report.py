"""What loading or converting a checkpoint did, as data and as a short text."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from attnpool_backbones.checkpoints.message_texts import list_names


@dataclass
class LoadReport:
    """What became of the tensors of a checkpoint and of a model; all lists hold model names."""

    checkpoint: str
    """File that was loaded."""
    format: str
    """Who writes such files."""
    loaded: list[str] = field(default_factory=list)
    """Taken from the file as they are."""
    resized: list[str] = field(default_factory=list)
    """Taken from the file and fitted by the model to its size, e.g. position tables."""
    leftovers: list[str] = field(default_factory=list)
    """In the file, of no use to a dense backbone: classifier, pooling, unbuilt stages."""
    unexpected: list[str] = field(default_factory=list)
    """In the file, unknown to the model."""
    missing: list[str] = field(default_factory=list)
    """In the model, neither in the file nor allowed to be; they keep their initial values."""
    fresh: list[str] = field(default_factory=list)
    """In the model only, which no published file has: norms of the outputs, a ResNet's pooling."""
    misshapen: dict[str, str] = field(default_factory=dict)
    """Shapes in file and model of those missing because their shape cannot be adapted."""

    @property
    def clean(self) -> bool:
        """Whether nothing is missing or unexpected."""
        return not self.missing and not self.unexpected

    def __str__(self) -> str:
        missing = [f'{n} ({self.misshapen[n]})' if n in self.misshapen else n for n in self.missing]
        return _text(
            f'{self.checkpoint} ({self.format}): {len(self.loaded)} tensors loaded',
            {
                'resized': self.resized,
                'expected leftovers': self.leftovers,
                'unexpected': self.unexpected,
                'missing': missing,
                'new in this package': self.fresh,
            },
        )


@dataclass
class ConvertReport:
    """What a file conversion did; all lists hold names of the written file."""

    source: str
    """File that was converted."""
    destination: str
    """File that was written."""
    format: str
    """Who writes files like the source."""
    backbone: str
    """Registered type of the backbone that takes the weights."""
    converted: list[str] = field(default_factory=list)
    """Names of the backbone."""
    leftovers: list[str] = field(default_factory=list)
    """Of no use to a dense backbone, but kept: classifier, final norm, pooling."""
    unexpected: list[str] = field(default_factory=list)
    """Unknown to backbones of this type, but kept."""

    def __str__(self) -> str:
        return _text(
            f"{self.source} ({self.format}): {len(self.converted)} tensors for type='"
            f"attnpool_backbones.{self.backbone}' written to {self.destination}",
            {'leftovers, kept': self.leftovers, 'unexpected, kept': self.unexpected},
        )


def _text(headline: str, groups: dict[str, Sequence[str]]) -> str:
    counts = ', '.join(f'{len(names)} {group}' for group, names in groups.items())
    lines = [f'  {group}: {list_names(names)}' for group, names in groups.items() if names]
    return '\n'.join([f'{headline}, {counts}', *lines])
