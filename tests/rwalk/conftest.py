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


@pytest.fixture(autouse=True, scope="module")
def _compile_quickly():
    """Small problems: to compile costs far more than to run, so XLA is asked for little optimisation."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def optimised():
    """Compiled as for users: other sums, other rounding."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
