"""Which labels stand for no class: losses and metrics tell, not the data."""

from collections.abc import Iterator, Mapping
from typing import Any

from attnpool_backbones.config_types import config_entries
from attnpool_backbones.datasets.bit_depth import IGNORED
from attnpool_backbones.datasets.config_paths import metrics_of

__all__ = ['ignored_labels']

HEADS = ('decode_head', 'auxiliary_head', 'kernel_generate_head')


def ignored_labels(cfg: Mapping[str, Any], split: str) -> frozenset[int]:
    """Returns the labels of pixels that a run of a segmentor passes over.

    Args:
        cfg: The whole config.
        split: 'train', where the heads tell, or 'val' or 'test', where the metrics do.

    Returns:
        255 where nothing tells another one (``ignore_index``), and in a test in any case: a metric
        may leave out a class, beside what has no label.
    """
    if split == 'train':
        found = {head.get('ignore_index', IGNORED) for head in heads(cfg.get('model'))}
        return frozenset(found or {IGNORED})
    metrics = metrics_of(cfg.get(f'{split}_evaluator'))
    return frozenset({IGNORED, *(metric.get('ignore_index', IGNORED) for metric in metrics)})


def heads(model: Any) -> Iterator[Mapping[str, Any]]:
    """Yields the configs of a model's heads, also of those inside of wrappers and of heads."""
    for key, entry in config_entries(model):
        if key.rpartition('.')[2].partition('[')[0] in HEADS:
            yield entry
