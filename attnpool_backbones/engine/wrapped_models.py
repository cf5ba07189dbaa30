"""The model inside of what a Runner puts around it."""

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn

__all__ = ['bare_model']


def bare_model(model: nn.Module) -> nn.Module:
    """Returns the model inside of wrappers for several processes and test-time augmentation.

    Args:
        model: As a Runner has it; itself, if nothing is around it.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model
