import pytest
import torch

from attnpool_backbones import ops
from attnpool_backbones.ops.roi_align import EMPTY_MAXIMUM, Pooling, roi_align, write_maximum


@pytest.mark.parametrize(
    'roi, message',
    [
        ([0, 0, 0, float('nan'), 5], r'RoI 0 is not finite: \[0.0, 0.0, 0.0, nan, 5.0\]'),
        ([2, 0, 0, 1, 1], 'RoIs are of the images 2 to 2, the batch has the images 0 to 1'),
    ],
)
@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_impossible_rois_are_named(roi, message, mode):
    with pytest.raises(ValueError, match=message):
        roi_align(
            torch.zeros(2, 1, 4, 4), torch.tensor([roi], dtype=torch.float32), (2, 2), 1.0, 0, mode
        )


@pytest.mark.parametrize('ratio', [0, 2])
def test_boxes_of_negative_size_are_pooled_as_by_mmcv_on_cuda(ratio):
    """Models with random weights make such boxes (Sparse R-CNN); mmcv's CPU code ends there."""
    x = torch.rand(1, 2, 6, 6, requires_grad=True)
    there, back = (torch.tensor([[0.0, *box]]) for box in ([1, 1, 5, 4], [5, 4, 1, 1]))
    pooled = roi_align(x, back, (2, 2), 1.0, ratio)
    if ratio:  # the same samples, in the opposite order
        torch.testing.assert_close(pooled, roi_align(x, there, (2, 2), 1.0, ratio).flip(2, 3))
    else:  # no samples
        assert not pooled.any()
    with ops.formulas():
        torch.testing.assert_close(pooled, roi_align(x, back, (2, 2), 1.0, ratio))
    pooled.sum().backward()
    assert x.grad.isfinite().all() and bool(x.grad.any()) == bool(ratio)


def test_unknown_mode_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'sum'.*'max', 'avg'"):
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), (2, 2), pool_mode='sum')


@pytest.mark.parametrize('mode', ['avg', 'max'])
def test_huge_rois_cost_no_more_than_the_map(mode):
    x = torch.rand(1, 2, 5, 6)
    rois = torch.tensor([[0, -1e6, -2, 1e6, 8]])
    computed = roi_align(x, rois, (2, 3), 1.0, 0, mode)
    assert computed.isfinite().all()
    # the map lies in the middle third
    assert computed[..., 1].abs().sum() > 0 and not computed[..., [0, 2]].any()


def test_the_maximum_of_a_bin_without_samples_is_nowhere():
    """Weights of a sample do not add up to 1 exactly, which made a maximum of its absence."""
    x = torch.rand(1, 3, 12, 9, requires_grad=True)
    begins = torch.rand(500, 2) * 12 - 1
    empty = torch.cat([torch.zeros(500, 1), begins, begins], 1)
    empty[:, 4] += torch.rand(500) * 5  # no width, so no samples along x
    pooled, *where = empty.new_zeros(3, 500, 3, 4, 4)
    write_maximum(x.detach(), empty, pooled, *where, Pooling((4, 4), 1.0, 0, True))
    assert (pooled == EMPTY_MAXIMUM).all()
    assert all((positions == -1).all() for positions in where)
    roi_align(x, empty, (4, 4), 1.0, 0, 'max').sum().backward()
    assert not x.grad.any()
