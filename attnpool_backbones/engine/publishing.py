"""Publishes a checkpoint: some of its parts, in a file that has its own checksum in its name."""

import hashlib
import io
import os.path as osp
from collections.abc import Sequence
from typing import Any

import torch

from attnpool_backbones.checkpoints.reading import read_content


def publish(path: str, keys: Sequence[str], backend: Any) -> str:
    """Writes some parts of a checkpoint beside it.

    Args:
        path: The checkpoint.
        keys: Of its parts; those that it does not have are passed over.
        backend: mmengine's file backend.

    Returns:
        The new file, ``NAME-DIGEST.pth``.
    """
    # not by mmengine's door, which takes the config out of what strangers wrote
    checkpoint = read_content(path)
    content = io.BytesIO()
    torch.save({key: checkpoint[key] for key in keys if key in checkpoint}, content)
    # of the file, which is what downloads are compared with; mmengine's is of a pickle
    digest = hashlib.sha256(content.getvalue()).hexdigest()[:8]
    published = f'{osp.splitext(path)[0]}-{digest}.pth'
    backend.put(content.getvalue(), published)
    return published
