"""A change of the graph as an experiment: the basis before, what becomes of it, and what computing it anew gives."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rwalk import bounds, cache, checks, graph, precompute, woodbury
from rwalk.changes import EdgesCut
from rwalk.eigen import Basis
from rwalk.experiment import Given, Segmentation, State, timed
from rwalk.options import Updating


@dataclass(frozen=True)
class Update(Segmentation):
    """Segments one image after a change of its graph; `change` has the methods `graphs` and `carry`."""

    change: Any
    update: Updating

    updates = True

    @cached_property
    def graphs(self) -> tuple[graph.Lattice, graph.Lattice]:
        """The graph before and after the change."""
        whole = super().given
        return self.change.graphs(whole.lattice, self.weights, whole.case)

    @cached_property
    def given(self) -> Given:
        """What is asked of the graph after the change.

        Raises:
            InputError: the inputs cannot be used, or the change leaves a piece or a label without seeds.
        """
        if self.update.mode == "woodbury" and not isinstance(self.change, EdgesCut):
            raise checks.InputError("update.mode=woodbury: for change=edges only; choose filtered")
        if self.update.mode == "woodbury" and self.problem.kind == "both":
            raise checks.InputError("update.mode=woodbury: for problem=seeds or problem=priors; choose one of them")
        whole, (_, after) = super().given, self.graphs
        active = np.asarray(after.active)
        seeds = np.where(active, whole.seeds, -1)
        name = f"{whole.case.name} after the change"
        if self.problem.kind != "priors":
            checks.check_seeds(seeds, active, name)
            checks.check_pieces(graph.components(after), seeds, name)
        precompute.check_pairs(after, self.eigen)
        digest = precompute.graph_of(whole.case, active, self.weights, after.weights.dtype)
        return whole._replace(lattice=after, seeds=seeds, name=digest)

    @property
    def first(self) -> tuple[graph.Lattice, str]:
        """The graph before the change, whose basis is computed or opened."""
        before, _ = self.graphs
        case = self.given.case
        return before, precompute.graph_of(case, np.asarray(before.active), self.weights, before.weights.dtype)

    def fit(self, basis: Basis, first: graph.Lattice, lattice: graph.Lattice, key: jax.Array) -> Basis:
        """The basis after the change."""
        carried = self.change.carry(basis, first, lattice, self.update, key, normalised=self.eigen.normalised)
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), carried, basis)

    def _answer(self, state: State, basis: Basis, lattice: graph.Lattice) -> State:
        if self.update.mode != "woodbury":
            return super()._answer(state, basis, lattice)
        before, _ = self.graphs
        here, there = self.change.ends(before)
        cut = woodbury.change_of(here, there, -np.asarray(before.weights[0]).ravel()[here])
        given, problem = self.given, self.problem
        labels = given.seeds.ravel()
        positions = np.flatnonzero((labels >= 0) & (np.asarray(basis.mass) > 0))

        def ask() -> Any:
            if given.priors is None:
                return woodbury.seeds(basis, positions, labels[positions], given.regions, cut)
            p = jnp.asarray(given.priors.reshape(given.regions, -1), basis.vectors.dtype)
            laplacian = graph.stencil_of(before)
            return woodbury.priors(
                basis, laplacian, p, problem.gamma or 0.0, cut, normalised=self.eigen.normalised, polish=problem.polish
            )

        x, seconds = timed(ask)
        bound, pointwise = np.inf, np.inf
        if given.priors is not None:
            p = jnp.asarray(given.priors.reshape(given.regions, -1), x.dtype)
            mass, none = graph.mass(lattice, normalised=self.eigen.normalised), jnp.zeros(0, jnp.int32)
            found = bounds.guaranteed(mass, graph.stencil_of(lattice), x, p, problem.gamma or 0.0, none)
            bound = float(jnp.linalg.norm(found[0]) / jnp.linalg.norm(jnp.sqrt(mass)[None] * p))
            pointwise = float(found[1].max())
        figures = np.array([*state.figures[:2], seconds, basis.values.size, np.nan, bound, pointwise, 0])
        return state._replace(x=jnp.where(lattice.active.ravel()[None], x, 0), figures=figures)

    def _compare(self, state: State, lattice: graph.Lattice) -> dict[str, Any]:
        row = super()._compare(state, lattice)
        before, _ = self.graphs
        carried, seconds = timed(lambda: self.fit(state.basis, before, lattice, state.key))
        again = self._again(state, lattice)
        exact = self._exactly(lattice).x.reshape(self.given.regions, -1)
        rooted = jnp.sqrt(graph.mass(lattice, normalised=self.eigen.normalised))[None]
        row |= {
            "seconds/update": seconds,
            "pairs/updated_sum": float(carried.values.sum()),
            "pairs/updated_residual": float(carried.residual.max()),
        }
        for name, basis in (("stale", state.basis), ("recomputed", again.basis)):
            x = super()._answer(state, basis, lattice).x
            row[f"error/{name}"] = float(jnp.linalg.norm(rooted * (x - exact)) / jnp.linalg.norm(rooted * exact))
        row |= {
            "seconds/recomputed": again.seconds,
            "pairs/recomputed_sum": float(again.basis.values.sum()),
            "ratio/error": row["error/relative"] / max(row["error/recomputed"], 1e-12),
            "ratio/seconds": seconds / max(again.seconds, 1e-12),
        }
        return row

    def _again(self, state: State, lattice: graph.Lattice) -> precompute.Interval:
        """The basis of the changed graph computed anew; its seconds are those of a compiled program."""
        name = cache.digest(lattice.weights, lattice.active)
        bases = replace(self.basis, path=None, steps=self.eigen.maximum, storage=None)
        blank = precompute.blank(lattice.active.size, self.eigen.k, lattice.weights.dtype)
        if precompute.opened(self.eigen, bases, name, None) is None:
            jax.block_until_ready(self.eigen.basis(lattice, state.key, steps=1))
        none = precompute.Interval(blank, 0.0, False)
        return precompute.advance(lattice, self.eigen, bases, name, none, 0, state.key, None)
