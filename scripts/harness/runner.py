"""Runs the benchmarks of a package: every peer in turn with ours, on the same arrays."""

import dataclasses
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.environment import Worker, distributions, installed
from harness.floor import extra_memory, read_once
from harness.measure import (
    LEAST,
    ROW_BUDGET,
    Benchmark,
    Detail,
    Inputs,
    Peer,
    Row,
    Side,
    Timing,
    interleave,
    judge,
    timed,
)  # fmt: skip

Measured = tuple[Row, Detail]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a package's benchmarks may depend on.

    Attributes:
        data: folder of public data, where there is one.
        size: edge of the volumes for a quick trial; None is the size for which the bars hold.
        threads: cores that either side may use.
    """

    data: Path | None = None
    size: int | None = None
    threads: int = 2


class Bench:
    """Runs benchmarks, and collects the versions of the peers on the way."""

    def __init__(self, settings: Settings, repetitions: int | None = None) -> None:
        """Remember the settings; `repetitions` None lets the time of a row decide."""
        self._settings, self._repetitions = settings, repetitions
        self.versions: dict[str, str] = {}

    def rows(self, benchmark: Benchmark) -> Iterator[Measured]:
        """Measure one benchmark: a row for each peer, then one for memory and one for seconds where they have a bar."""
        inputs = benchmark.inputs()
        floor = read_once(inputs.values(), self._settings.threads)
        reference, ours = benchmark.reference(inputs), timed(benchmark.ours(inputs))
        for peer in benchmark.peers:
            nothing = Row(benchmark.name, peer.name, bar=peer.bar)
            if not installed(peer):
                yield nothing, Detail("not installed", floor_s=floor)
                continue
            try:
                timing, result, other = self._interleave(ours, peer, inputs)
                peer_error = benchmark.error(other, reference)
            except (RuntimeError, ValueError) as error:  # a peer that breaks must not take the rest of the run with it
                yield nothing, Detail(f"failed: {error}", floor_s=floor)
                continue
            row = self._row(benchmark, peer, timing, benchmark.error(benchmark.answer(result), reference))
            yield row, Detail("measured", timing, peer_error, floor)
        if benchmark.memory_mb is not None:
            yield self._memory(benchmark, ours, reference, floor)
        if benchmark.seconds is not None:
            yield self._seconds(benchmark, ours, reference, floor)

    def _interleave(self, ours: Side, peer: Peer, inputs: Inputs) -> tuple[Timing, Any, Any]:
        with Worker(peer.environment, self._settings.threads) as worker:
            self.versions.update({name: worker.versions[name] for name in distributions(peer)})
            worker.prepare(peer.function, inputs)
            return interleave(ours, worker, self._repetitions)

    def _bar(self, bar: float | None) -> float | None:
        """Bars are stated for one size; a smaller run only shows that everything works."""
        return bar if self._settings.size is None else None

    def _row(self, benchmark: Benchmark, peer: Peer, timing: Timing, error: float) -> Row:
        ratio, bar = timing.peer / timing.ours, self._bar(peer.bar)
        met = judge(ratio, error, bar, benchmark.tolerance)
        return Row(benchmark.name, peer.name, timing.ours, timing.peer, ratio, error, bar, met)

    def _memory(self, benchmark: Benchmark, ours: Side, reference: Any, floor: float) -> Measured:
        """A row whose peer is the allowance: the ratio is allowed over used megabytes, its bar 1."""
        name, bar = f"allowance of {benchmark.memory_mb:g} MB beyond inputs", self._bar(1.0)
        extra = extra_memory(ours)
        if extra is None:
            return Row(benchmark.name, name, bar=bar), Detail("failed: this system does not tell", floor_s=floor)
        seconds, result = ours()
        error, ratio = benchmark.error(benchmark.answer(result), reference), benchmark.memory_mb / max(extra, 0.1)
        met = judge(ratio, error, bar, benchmark.tolerance)
        return Row(benchmark.name, name, seconds, None, ratio, error, bar, met), Detail(floor_s=floor, extra_mb=extra)

    def _seconds(self, benchmark: Benchmark, ours: Side, reference: Any, floor: float) -> Measured:
        """A row whose peer is the allowance: the ratio is allowed over used seconds, its bar 1."""
        name, bar = f"allowance of {benchmark.seconds:g} s", self._bar(1.0)
        first = ours()[0]  # may compile
        wanted = self._repetitions or (LEAST if first < ROW_BUDGET else 1)
        runs = [ours() for _ in range(wanted)]
        seconds = statistics.median(took for took, _ in runs)
        error, ratio = benchmark.error(benchmark.answer(runs[-1][1]), reference), benchmark.seconds / seconds
        met = judge(ratio, error, bar, benchmark.tolerance)
        return Row(benchmark.name, name, seconds, None, ratio, error, bar, met), Detail(floor_s=floor)
