"""Trained models in use: from images, folders, videos and cameras to predictions.

from attnpool_backbones.inference import load
model = load('work_dirs/cells_mask-rcnn_caformer-s18')
for prediction in model('photos/*.jpg', score=0.5):
    print(prediction.name, prediction.boxes)
"""

from typing import Any

__all__ = ['load']


def load(*args: Any, **kwargs: Any) -> Any:
    """Loads a trained model; see :func:`attnpool_backbones.inference.loading.load`."""
    # torch and mmengine are imported when a model is, not with the package
    from attnpool_backbones.inference.loading import load as load_model

    return load_model(*args, **kwargs)
