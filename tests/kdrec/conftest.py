import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _settings():
    """Single precision, and programs that compile in half the time: what is asserted here does not depend on speed.

    Libraries that tests beside these import, scikit-bio among them, turn double precision on for a whole process.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.enable_x64(False), pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # for the commands and programs that tests start
        yield
    jax.config.update("jax_disable_most_optimizations", False)
