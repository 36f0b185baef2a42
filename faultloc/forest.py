"""The programs of a collection side by side, as learners take them: one forest, one table of lines.

Legend: B bugs, N statements and L lines of all of them together, those of a bug filled up to whole blocks, S kinds of
statements, F features, R pairs of kinds, G models that are learned at once, each from the bugs to which it gives
weight: folds, and restarts of each.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from faultloc import tflm
from faultloc.programs import Program

WIDTH = 2048
BLOCK = 128  # lines; sums over a bug are dense within a block and scattered only from block to bug
SHARES = 8  # blocks come in multiples of it, so that two, four or eight devices can divide them


class Example(NamedTuple):
    """One bug to learn from.

    Attributes:
        program: with its coverage.
        faulty: indices of its faulty lines.
    """

    program: Program
    faulty: np.ndarray


class Lines(NamedTuple):
    """Arrays that the losses read, on the device.

    Attributes:
        order: see `tflm.schedule`.
        pairs: `[R, 2]` kinds of a statement and of one that it encloses.
        relation: `[N]` index into `pairs`, R at a root.
        symbol: `[N]`.
        children: `[N]` number of them.
        tree: `[N]` bug that the statement belongs to.
        owner: `[L]` statement of each line, N where there is none.
        kind: `[L]` symbol of that statement.
        values: `[L, F]` features, standardised over the whole collection for the sake of float32.
        real: `[L]` bool, false where a block is filled up.
        faulty: `[Y]` places of the faulty lines in these arrays.
        bug: `[Y]` their bugs, ascending.
        block: `[L / BLOCK]` bug of each block.
        size: `[B]` lines.
    """

    order: tflm.Schedule
    pairs: Any
    relation: Any
    symbol: Any
    children: Any
    tree: Any
    owner: Any
    kind: Any
    values: Any
    real: Any
    faulty: Any
    bug: Any
    block: Any
    size: Any


class Forest(NamedTuple):
    """A collection of bugs.

    Attributes:
        language: of all programs.
        symbols: `S` names.
        shift, stretch: `[F]` of the standardisation of `lines.values`.
        sums, squares: `[B, F]` of the standardised values over the lines of each bug, float64.
        place: `[B]` places of the lines of each bug in the arrays of `lines`.
        lines: what the losses read.
    """

    language: str
    symbols: tuple[str, ...]
    shift: np.ndarray
    stretch: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    place: tuple[np.ndarray, ...]
    lines: Lines

    @property
    def bugs(self) -> int:
        """B."""
        return len(self.sums)

    def moments(self, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[F, G]` mean and deviation of the lines of the bugs that each model learns from.

        Args:
            weight: `[B, G]`, zero for the bugs that a model must not see.
        """
        seen = np.asarray(weight > 0, np.float64)
        count = np.asarray(self.lines.size, np.float64) @ seen
        mean = self.sums.T @ seen / count
        variance = self.squares.T @ seen / count - mean**2
        return mean, np.sqrt(np.where(variance > 1e-12, variance, 1.0))


def plant(examples: Sequence[Example]) -> Forest:
    """Put bugs side by side.

    Args:
        examples: in one language.

    Raises:
        ValueError: there is no example, or there are several languages.
    """
    if not examples:
        raise ValueError("no bug to learn from; give at least one whose faulty lines are known")
    languages = sorted({example.program.language for example in examples})
    if len(languages) > 1:
        raise ValueError(f"programs in {' and '.join(languages)}: weights do not transfer; learn from one language")
    programs = [example.program for example in examples]
    symbols = tuple(sorted({symbol for program in programs for symbol in program.symbols}))
    number = {name: i for i, name in enumerate(symbols)}
    symbol = np.concatenate([[number[name] for name in program.symbols] for program in programs])
    starts = np.cumsum([0, *(len(program.symbols) for program in programs)])
    parent = np.concatenate(
        [np.where(p.parent < 0, -1, p.parent + start) for p, start in zip(programs, starts, strict=False)]
    )
    inner = np.flatnonzero(parent >= 0)
    codes, relation = np.unique(symbol[parent[inner]] * len(symbols) + symbol[inner], return_inverse=True)
    rows = np.full(len(symbol), len(codes))
    rows[inner] = relation
    raw = np.concatenate([program.values for program in programs])
    shift, stretch = raw.mean(0), np.where(raw.std(0) > 1e-9, raw.std(0), 1.0)
    values = (raw - shift) / stretch
    sizes = np.array([len(program.owner) for program in programs])
    first = np.cumsum([0, *sizes[:-1]])
    place, block = _blocks(sizes)
    block = np.pad(block, (0, -len(block) % SHARES), mode="edge")
    owner = np.concatenate([p.owner + start for p, start in zip(programs, starts, strict=False)])
    counts = [len(example.faulty) for example in examples]
    faulty = place[np.concatenate([e.faulty + start for e, start in zip(examples, first, strict=True)])]
    total = len(block) * BLOCK
    lines = Lines(
        tflm.schedule(parent, width=min(WIDTH, tflm.bucket(len(symbol)))),
        np.stack([codes // len(symbols), codes % len(symbols)], axis=1), rows, symbol,
        np.bincount(parent[inner], minlength=len(symbol)), np.repeat(np.arange(len(programs)), np.diff(starts)),
        _spread(owner, place, total, len(symbol)), _spread(symbol[owner], place, total, 0),
        _spread(values.astype(np.float32), place, total, 0), _spread(np.ones(len(place), bool), place, total, False),
        faulty, np.repeat(np.arange(len(programs)), counts), block, sizes.astype(np.float32),
    )  # fmt: skip
    narrow = [jnp.asarray(x, jnp.int32 if np.issubdtype(x.dtype, np.integer) else x.dtype) for x in lines[1:]]
    places = tuple(np.split(place, first[1:]))
    sums = (np.add.reduceat(values, first), np.add.reduceat(values**2, first))
    return Forest(languages[0], symbols, shift, stretch, *sums, places, Lines(lines.order, *narrow))


def spread(forest: Forest, place: Callable[..., Any]) -> Forest:
    """Divide the lines among devices; what is counted over lines is then added up between them by the compiler.

    The trees, which are a hundredth of the work, stay whole on each.

    Args:
        forest: to divide.
        place: puts an array onto the devices, a share of its first axis each.
    """
    apart = ("owner", "kind", "values", "real", "block")
    placed = {name: place(getattr(forest.lines, name)) for name in apart}
    return forest._replace(lines=forest.lines._replace(**placed))


def _blocks(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of every line when each bug starts a new block, and the bug of every block."""
    blocks = -(-sizes // BLOCK)
    first = BLOCK * np.cumsum([0, *blocks[:-1]])
    place = np.concatenate([start + np.arange(size) for start, size in zip(first, sizes, strict=True)])
    return place, np.repeat(np.arange(len(sizes)), blocks)


def _spread(values: np.ndarray, place: np.ndarray, total: int, fill: float) -> np.ndarray:
    found = np.full((total, *values.shape[1:]), fill, values.dtype)
    found[place] = values
    return found


def by_bug(values: jax.Array, lines: Lines) -> jax.Array:
    """`[B, ...]` sums over the lines of each bug, `[L, ...]`; what fills up a block must be zero."""
    return jax.ops.segment_sum(_blocked(values).sum(1), lines.block, lines.size.shape[0], indices_are_sorted=True)


def log_sum_by_bug(values: jax.Array, lines: Lines) -> jax.Array:
    """`[B, ...]` log of the sum of the exponentials over the lines of each bug; what fills up must be -inf."""
    highest = jax.lax.stop_gradient(_blocked(values).max(1))
    highest = jax.ops.segment_max(highest, lines.block, lines.size.shape[0], indices_are_sorted=True)
    return jnp.log(by_bug(jnp.exp(values - of_bug(highest, lines)), lines)) + highest


def log_sum_of_faulty(values: jax.Array, lines: Lines) -> jax.Array:
    """`[B, ...]` the same over the faulty lines only."""
    bugs, values = lines.size.shape[0], values[lines.faulty]
    highest = jax.lax.stop_gradient(jax.ops.segment_max(values, lines.bug, bugs, indices_are_sorted=True))
    total = jax.ops.segment_sum(jnp.exp(values - highest[lines.bug]), lines.bug, bugs, indices_are_sorted=True)
    return jnp.log(total) + highest


def of_bug(values: jax.Array, lines: Lines) -> jax.Array:
    """`[L, ...]` the entry of its bug for each line."""
    per_block = values[lines.block][:, None]
    return jnp.broadcast_to(per_block, (per_block.shape[0], BLOCK, *values.shape[1:])).reshape(-1, *values.shape[1:])


def _blocked(values: jax.Array) -> jax.Array:
    return values.reshape(-1, BLOCK, *values.shape[1:])
