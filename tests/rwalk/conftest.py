import jax
import numpy as np
import pytest


@pytest.fixture
def float64():
    """Double precision for what is compared to the last digits."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def noise():
    return np.random.default_rng(0)
