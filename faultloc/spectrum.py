"""Which test ran which line: the coverage of a program, packed eight lines to a byte, and its counts.

Legend: T tests, L executable lines; a line is covered by a test that ran it at least once.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Spectrum:
    """Coverage and outcomes of the tests of one program version; a pytree.

    Attributes:
        bits: `[T, ceil(L / 8)]` uint8, the most significant bit first.
        failed: `[T]` bool.
        size: L.
    """

    bits: Any
    failed: Any
    size: int = field(metadata={"static": True})

    @property
    def tests(self) -> int:
        """T."""
        return self.bits.shape[0]

    def covered(self) -> Any:
        """`[T, L]` uint8, one where the test ran the line."""
        return _namespace(self.bits).unpackbits(self.bits, axis=1, count=self.size)


class Counts(NamedTuple):
    """How many tests of either outcome ran each line.

    Attributes:
        ef: `[..., L]` failing tests that ran the line.
        ep: `[..., L]` passing tests that ran the line.
        failing: `[...]` F, all failing tests.
        passing: `[...]` P, all passing tests.
    """

    ef: Any
    ep: Any
    failing: Any
    passing: Any

    @property
    def nf(self) -> Any:
        """`[..., L]` failing tests that did not run the line."""
        return self.failing - self.ef

    @property
    def np(self) -> Any:
        """`[..., L]` passing tests that did not run the line."""
        return self.passing - self.ep


def pack(covered: np.ndarray, failed: np.ndarray) -> Spectrum:
    """Pack a coverage matrix.

    Args:
        covered: `[T, L]`, true where the test ran the line.
        failed: `[T]`, true where the test failed.

    Returns:
        The spectrum, on the host.

    Raises:
        ValueError: the shapes do not belong together.
    """
    covered, failed = np.asarray(covered, bool), np.asarray(failed, bool)
    if covered.ndim != 2 or failed.shape != covered.shape[:1]:
        raise ValueError(
            f"covered must be [tests, lines] and failed [tests], got {covered.shape} and {failed.shape}; "
            "give one outcome per row of the matrix"
        )
    return Spectrum(np.packbits(covered, axis=1), failed, covered.shape[1])


def counts(spectrum: Spectrum, weights: Any = None) -> Counts:
    """Count the failing and the passing tests that ran each line, in one product with the coverage matrix.

    Works on NumPy arrays, in float64, and on JAX arrays, in float32, under jit and vmap alike.

    Args:
        spectrum: of one program.
        weights: `[T]` how often each test counts, as a bootstrap draws it; None counts each once.

    Returns:
        Counts of fields `[L]` and `[]`, whole numbers in floating point where the weights are whole.
    """
    xp = _namespace(spectrum.bits)
    dtype = np.float64 if xp is np else np.float32
    failed = xp.asarray(spectrum.failed).astype(dtype)
    weights = xp.ones_like(failed) if weights is None else xp.asarray(weights).astype(dtype)
    outcome = xp.stack([weights * failed, weights * (1 - failed)])
    # A float32 product is exact below 2^24 tests and, unlike one of integers, uses BLAS.
    by_outcome = outcome.astype(np.float32) @ spectrum.covered().astype(np.float32)
    totals = outcome.sum(1)
    return Counts(by_outcome[0].astype(dtype), by_outcome[1].astype(dtype), totals[0], totals[1])


def _namespace(array: Any) -> Any:
    return array.__array_namespace__()
