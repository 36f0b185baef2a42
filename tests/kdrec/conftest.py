import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def _settings():
    """Single precision: libraries that tests beside these import, scikit-bio among them, turn double precision on."""
    with jax.enable_x64(False):
        yield
