"""What the operator contract does not say of focal losses."""

import pytest
import torch

from attnpool_backbones.ops.focal_loss import softmax_focal_loss, softmax_gradient, softmax_loss


@pytest.mark.parametrize('form', [softmax_focal_loss, softmax_focal_loss.formula])
@pytest.mark.parametrize('gamma', [0.0, 0.5])
def test_certain_rows_have_almost_no_gradient(form, gamma):
    """Of a probability of 1, whatever the power of what is left of it."""
    logits = torch.tensor([[40.0, 0.0], [0.0, 1.0]], requires_grad=True)
    loss = form(logits, torch.tensor([0, 0]), gamma, 1.0)
    (grad,) = torch.autograd.grad(loss.sum(), logits)
    assert loss[0] == 0 and grad[0].abs().max() < 1e-6
    assert grad[1].isfinite().all() and grad[1].all()


def test_short_probabilities_have_logarithms():
    """As mmcv gives them, in the type of the logits."""
    given = torch.tensor([[1.0, 0.0]]).half(), torch.tensor([1]), 2.0, 0.25, None
    assert softmax_loss(*given).isfinite().all() and softmax_gradient(*given).isfinite().all()
