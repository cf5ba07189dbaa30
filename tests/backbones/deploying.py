"""What a backbone computes before and after its norms and scales are folded."""

import torch
from torch import Tensor, nn


def assert_deploys_to_the_same(model: nn.Module, x: Tensor, rtol: float, atol: float) -> None:
    """Checks that a trained backbone gives the same maps after ``switch_to_deploy``."""
    model.eval()
    with torch.no_grad():
        expected = model(x)
        model.switch_to_deploy()
        torch.testing.assert_close(model(x), expected, rtol=rtol, atol=atol)
