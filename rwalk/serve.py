"""Painting in a browser as an experiment: the basis in some intervals, then a page until the user ends it."""

import statistics
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rwalk import checks, precompute, web
from rwalk.checks import InputError
from rwalk.options import Bases, Eigen, Problem, Serving, Weights
from rwalk.session import Session, Told


@dataclass(frozen=True)
class Server:
    """Serves one image to one user; `image` has a method `case()`, `seeds` a method `place(case)` or is None."""

    image: Any
    weights: Weights
    problem: Problem
    eigen: Eigen
    basis: Bases
    serve: Serving
    seeds: Any = None

    @cached_property
    def _work(self) -> precompute.Precompute:
        return precompute.Precompute(self.image, self.weights, self.eigen, self.basis)

    @cached_property
    def _folder(self) -> list[Path]:
        """Where the user's results go; told by the shell before the run."""
        return []

    def keep_in(self, folder: Path) -> None:
        """Write what is saved here."""
        self._folder.append(folder)

    def length(self) -> int:
        """Intervals of the basis, and the page."""
        return self._work.length() + 1

    def init(self, key: jax.Array) -> precompute.State:
        """State before the first interval."""
        return self._work.init(key)

    def run(self, state: precompute.State, *, place: Any) -> Iterator[tuple[precompute.State, dict[str, Any]]]:
        """Go on from `state.step`; see `quartet.drive`. The last interval lasts as long as the page is there."""
        if int(state.step) == self.length():
            return
        row: dict[str, Any] = {}
        for state, row in self._work.run(state, place=place):  # noqa: B020 - the loop is the state's life
            yield state, row
        session = self._session(state)
        session.start()
        try:
            self._until_the_end(session)
        finally:
            session.stop()
        times = [1e3 * each for each in session.times]
        row = row | {
            "interactions": len(times),
            "milliseconds/median": statistics.median(times) if times else float("nan"),
            "milliseconds/largest": max(times, default=float("nan")),
        }
        yield state._replace(step=np.asarray(self.length(), np.int64)), row

    def _session(self, state: precompute.State) -> Session:
        lattice, _ = self._work.given
        case = self.image.case()
        seeds = None
        if self.seeds is not None:
            seeds = self.seeds.place(case)
            if seeds.max() >= self.serve.labels:
                raise InputError(f"serve.labels={self.serve.labels}: the seeds have {seeds.max() + 1}; allow as many")
            checks.check_seeds(seeds, case.mask, getattr(self.seeds, "path", None) or case.name)
        basis = precompute.widened(state.basis)
        told = Told(case, lattice, basis, self.weights, self.problem, self.serve, self.eigen.normalised, seeds)
        return Session(told)

    def _until_the_end(self, session: Session) -> None:
        """Answer requests until the time is over or Ctrl-C."""
        server = web.listen(session, self.serve.port, self._folder[-1] if self._folder else Path.cwd())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        # The address is what the user waits for; the terminal is the only place to tell it.
        print(f"open http://{web.HOST}:{server.server_port}/ in a browser; Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait(self.serve.seconds)
        except KeyboardInterrupt:
            print("the page is closed; an answer that is being improved is finished first", flush=True)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
