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
    """Small problems: to compile costs far more than to run, so XLA is asked for little optimisation.

    The commands and programs that tests start are asked the same, through the environment.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def optimised(monkeypatch):
    """Compiled as for users: other sums, other rounding."""
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
