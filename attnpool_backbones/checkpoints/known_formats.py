"""All known checkpoint formats.

A family's module ``checkpoints/<family>.py`` imports ``CheckpointFormat`` from
``checkpoint_format.py`` and has a tuple ``FORMATS``: the published formats first, the names of this
package last.
"""

from collections.abc import Iterable

from attnpool_backbones.checkpoints import (
    attn_resnet,
    coatnet,
    deepvit,
    metaformer,
    patchconvnet,
)
from attnpool_backbones.checkpoints.checkpoint_format import CheckpointFormat

FORMATS: tuple[CheckpointFormat, ...] = (
    *attn_resnet.FORMATS,
    *coatnet.FORMATS,
    *deepvit.FORMATS,
    *metaformer.FORMATS,
    *patchconvnet.FORMATS,
)
"""All known formats; no file may have the signature of two of them."""


def recognise(names: Iterable[str]) -> CheckpointFormat | None:
    """Returns the format of a state dict with these names, or None if it is none of ours."""
    names = list(names)
    return next((known for known in FORMATS if known.matches(names)), None)
