import pytest
import torch

from attnpool_backbones.ops.deform_conv import deform_conv2d


@pytest.mark.parametrize(
    'shapes, message',
    [
        (((1, 3, 5, 5), (1, 18, 3, 3), (2, 4, 3, 3)), r'x has 3 channels; the weight takes 4'),
        (
            ((1, 4, 5, 5), (1, 18, 5, 5), (2, 4, 3, 3)),
            r'offset has the shape \(1, 18, 5',
        ),
        (((1, 4, 5, 5), (1, 9, 3, 3), (2, 4, 3, 3)), r'needed is \(1, 18, 3, 3\)'),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, message):
    with pytest.raises(ValueError, match=message):
        deform_conv2d(*(torch.zeros(shape) for shape in shapes))
