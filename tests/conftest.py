"""Strict numerics for every test: promotion must be spelled out, warnings are errors, two devices on a CPU."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("WANDB_MODE", "offline")

from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = Path(__file__).resolve().parent.parent


def devices(count: int) -> dict[str, str]:
    """What a program that a test starts must find in its environment to have so many devices."""
    return {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"}


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled programs beside pytest's own cache, for the workers, the commands that tests start, the next run.

    Most of the suite's time is XLA's compiler. `pytest --cache-clear` forgets them.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not config.pluginmanager.hasplugin("cacheprovider"):
        return
    chosen = {
        "jax_compilation_cache_dir": str(config.cache.mkdir("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in chosen.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def public_data() -> Path:
    """Folder of the public data sets; a test that needs one which is absent is skipped with the reason."""
    folder = Path(os.environ.get("QUARTET_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no public data at {folder}: set QUARTET_DATA to their folder")
    return folder


@pytest.fixture(autouse=True)
def _precision():
    """A run sets precision and NaN checks for its process, and importing scikit-bio does: no test inherits them."""
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_debug_nans", False)


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled():
    """Each compiled program holds memory maps; a process has 65,530 of them on Linux, and past those XLA crashes."""
    yield
    jax.clear_caches()


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
