"""Fixtures for the tests of the detectnet_v2 package."""

from collections.abc import Callable

import pytest
import torch
from detectnet_v2.model import DetectNetV2


@pytest.fixture
def make_model() -> Callable[..., DetectNetV2]:
    """A function that builds a DetectNetV2 whose values matter everywhere, as after training.

    Fresh batch norms and biases are neutral, so that mistakes with them would not show.
    """

    def make(*args, **options) -> DetectNetV2:
        generator = torch.Generator().manual_seed(5)
        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = DetectNetV2(*args, **options)
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if name.endswith("running_var") or (".weight" in name and value.ndim == 1):
                    value.uniform_(0.5, 1.5, generator=generator)
                elif value.ndim == 1:
                    value.uniform_(-0.3, 0.3, generator=generator)
                elif value.ndim == 4:
                    value.mul_(torch.rand(value.shape[0], 1, 1, 1, generator=generator) + 0.5)
        return model.eval()

    return make
