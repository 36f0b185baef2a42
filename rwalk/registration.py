"""Registration as an experiment: an interval for each level of the pyramid, one for what was reached."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import dissimilarity, graph, landmarks, pairs, register, resampling, warp
from rwalk.checks import InputError
from rwalk.options import Weights
from rwalk.registration_options import Dissimilarity, Pyramid


class State(NamedTuple):
    """Everything needed to go on after interval number `step`.

    Attributes:
        step: `[]` intervals done.
        key: not used: nothing here is random but the pair itself.
        field: `[d, *shape]` voxels of the fixed grid.
        seconds: `[]` spent on the levels, compilation included.
    """

    step: np.ndarray
    key: jax.Array
    field: jax.Array
    seconds: np.ndarray


@dataclass(frozen=True)
class Registration:
    """Registers one pair; `image` has a method `case()`, `moving` a method `pair(case)`."""

    image: Any
    moving: Any
    weights: Weights
    dissimilarity: Dissimilarity
    pyramid: Pyramid

    @cached_property
    def given(self) -> pairs.Pair:
        """Both images, read and checked.

        Raises:
            InputError: one of them cannot be used.
        """
        case = self.image.case()
        if min(case.full) < 2:
            raise InputError(
                f"{case.name}: shape {case.full} has an axis of length one; drop that axis to register a plane, or "
                "give more slices"
            )
        return self.moving.pair(case)

    @cached_property
    def levels(self) -> list[tuple[int, int, int]]:
        """Factor, radius and rounds of the levels that the image is large enough for."""
        return self.pyramid.used(self.given.fixed.shape, self.given.grid.spacing)

    @cached_property
    def _found(self) -> dict[str, np.ndarray]:
        """What `report` writes; filled by the last interval."""
        return {}

    def length(self) -> int:
        """The levels, and the measures."""
        return len(self.levels) + 1

    def init(self, key: jax.Array) -> State:
        """State before the first interval: nothing is displaced."""
        shape = self.given.fixed.shape
        field = jnp.zeros((len(shape), *shape), jnp.result_type(float))
        return State(np.zeros((), np.int64), key, field, np.zeros(()))

    def run(self, state: State, *, place: Any) -> Iterator[tuple[State, dict[str, Any]]]:
        """Go on from `state.step`; see `quartet.drive`. `place` spreads the first axis of space."""
        for step in range(int(state.step), self.length()):
            if step < len(self.levels):
                begin = time.perf_counter()
                field = jax.block_until_ready(self._climb(self.levels[step], state.field, place))
                seconds = state.seconds + time.perf_counter() - begin
                state = state._replace(field=field, seconds=seconds)
                row = {"level": self.levels[step][0], "seconds": float(seconds)} | self._displacements(field)
            else:
                row = self._measure(state)
            state = state._replace(step=np.asarray(step + 1, np.int64))
            yield state, row

    def _at(self, factor: int, place: Any) -> tuple[jax.Array, jax.Array, graph.Lattice]:
        """Both images and the lattice of the fixed one, over cubes of `factor` voxels."""
        given = self.given
        dtype = jnp.result_type(float)
        fixed, moving = (register.shrink(place(jnp.asarray(x, dtype)), factor) for x in (given.fixed, given.moving))
        spacing = tuple(edge * factor for edge in given.grid.spacing)
        return fixed, moving, self.weights.graph(fixed[None], jnp.ones(fixed.shape, bool), spacing)

    def _climb(self, level: tuple[int, int, int], field: jax.Array, place: Any) -> jax.Array:
        factor, radius, rounds = level
        about, pyramid = self.dissimilarity, self.pyramid
        return register.climb(
            *self._at(factor, place),
            field,
            factor=factor,
            rounds=rounds,
            gamma=pyramid.gamma,
            hold=pyramid.hold,
            alpha=about.alpha,
            radius=radius,
            kind=about.kind,
            patch=about.patch,
            estimate=pyramid.estimate,
        )

    def _displacements(self, field: jax.Array) -> dict[str, float]:
        """Size of the field, where space folds, and how far it is from the truth where that is known."""
        given = self.given
        edges = jnp.asarray(given.grid.spacing, field.dtype).reshape(-1, *(1,) * (field.ndim - 1))
        mask, volume = given.mask, np.asarray(warp.jacobian(field))
        row = {
            "displacement/mean": _mean_length(field * edges, mask),
            "displacement/largest": float(jnp.sqrt(((field * edges) ** 2).sum(0)).max()),
            "folding": float((volume <= 0)[mask].mean()),
            "jacobian/deviation": float(np.log(np.maximum(volume[mask], 1e-3)).std()),
        }
        if given.truth is not None:
            truth = jnp.asarray(given.truth, field.dtype)
            row = {"epe": _mean_length((field - truth) * edges, mask)} | row
            row["epe/before"] = _mean_length(truth * edges, mask)
        return row

    def _measure(self, state: State) -> dict[str, float]:
        """Scores of the finished field, its uncertainty in the last window, and the maps that `report` writes."""
        given, field = self.given, state.field
        moved = np.asarray(field, np.float64)
        found: dict[str, np.ndarray] = {
            "displacement": np.asarray(field, np.float32),
            "warped": resampling.resample(given.source, given.grid, moved, order=1).astype(np.float32),
            "jacobian": np.asarray(warp.jacobian(field), np.float32),
        }
        deviation, entropy = self._uncertainty(field)
        found |= {"deviation": deviation, "entropy": entropy}
        row = self._displacements(field) | {
            "deviation": float(deviation[given.mask].mean()),
            "entropy": float(entropy[given.mask].mean()),
            "inverse/residual": self._inverse_residual(field),
            "seconds": float(state.seconds),
        }
        labels = None
        if given.labels is not None and given.moving_labels is not None:
            before = jnp.asarray(given.moving_labels, field.dtype)[None]
            labels = np.asarray(warp.sample(before, field, order=0)[0]).astype(np.int32)
            row = self._dice("dice", labels) | self._dice("dice_before", given.moving_labels) | row
            found["labels"] = labels if given.values is None else given.values[labels]
        self._found.update(found)
        return row | self._landmarks(moved, labels)

    def _landmarks(self, field: np.ndarray, labels: np.ndarray | None) -> dict[str, float]:
        """Target registration error, mm: at corners of the image where the field is known, else of label centres."""
        given = self.given
        if given.truth is not None:
            x, y = landmarks.with_truth(given.fixed, given.mask, given.truth, given.grid.spacing)
            after, before = (x + landmarks.along(field, x), y), (x, y)
        elif given.labels is not None and given.moving_labels is not None and labels is not None:
            after, before = (landmarks.centres(given.labels, each) for each in (labels, given.moving_labels))
        else:
            return {}
        if not len(after[0]):
            return {}
        left, was = (landmarks.distances(points, given.grid.spacing) for points in (after, before))
        return {
            "tre": float(left.mean()),
            "tre/before": float(was.mean()),
            "tre/largest": float(left.max()),
            "landmarks": len(left),
        }

    def _uncertainty(self, field: jax.Array) -> tuple[np.ndarray, np.ndarray]:
        """Standard deviation, mm, and entropy of the displacement within the last level's window, on the fixed grid."""
        factor, radius, _ = self.levels[-1]
        fixed, moving, lattice = self._at(factor, lambda x: x)
        u = jnp.stack([register.shrink(part, factor) for part in field]) / factor
        about = {"radius": radius, "kind": self.dissimilarity.kind, "patch": self.dissimilarity.patch}
        costs = register.window_costs(fixed, moving, u, **about)
        solve, alpha = register.walker(lattice, gamma=self.pyramid.gamma), self.dissimilarity.alpha
        shifts = jnp.asarray(dissimilarity.window(radius, fixed.ndim), fixed.dtype)
        edges = jnp.asarray(given_edges(self.given, factor), fixed.dtype)
        spread = register.covariance(solve, costs, alpha, shifts * edges[None])
        variance = jnp.trace(spread)
        maps = jnp.stack([jnp.sqrt(jnp.maximum(variance, 0)), register.entropy(solve, costs, alpha)])
        whole = maps if factor == 1 else warp.refine(maps, field.shape[1:], factor) / factor
        deviation, entropy = np.asarray(whole, np.float32)
        return deviation, entropy

    def _inverse_residual(self, field: jax.Array) -> float:
        """How far a point is from itself after the inverse by iteration and the field, mm, mean over the mask."""
        given = self.given
        back = warp.invert(field)
        edges = jnp.asarray(given.grid.spacing, field.dtype).reshape(-1, *(1,) * (field.ndim - 1))
        return _mean_length(warp.compose(back, field) * edges, given.mask)

    def _dice(self, name: str, labels: np.ndarray) -> dict[str, float]:
        from evalmetrics import crisp

        given = self.given
        known = given.labels
        assert known is not None  # for the type checker: asked before
        count = int(max(known.max(), labels.max())) + 1
        table = crisp.contingency(
            jnp.asarray(known.ravel(), jnp.int32), jnp.asarray(labels.ravel(), jnp.int32), (count, count)
        )
        dice = np.asarray(crisp.dice(table, pairs=True)).diagonal()[1:]  # the first is the background
        each = {f"{name}/{label}": float(d) for label, d in zip(given.names[1:], dice, strict=False)}
        return {name: float(np.nanmean(dice))} | each

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """Write the field, the warped image and labels, the Jacobian, the uncertainty and the pages of a run."""
        if self._found:
            from rwalk import registration_report

            registration_report.write(self._found, self.given, rows[-1], folder)


def given_edges(given: pairs.Pair, factor: int) -> tuple[float, ...]:
    """Edge lengths of cubes of `factor` voxels."""
    return tuple(edge * factor for edge in given.grid.spacing)


def _mean_length(vectors: jax.Array, mask: np.ndarray) -> float:
    return float(np.asarray(jnp.sqrt((vectors**2).sum(0)))[mask].mean())
