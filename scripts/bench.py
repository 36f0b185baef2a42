"""Side-by-side benchmarks of one package: our seconds, each peer's, measured in turn in one run.

    python scripts/bench.py evalmetrics --setup             make the environments of the PyTorch-based peers, once
    python scripts/bench.py evalmetrics                     every benchmark
    python scripts/bench.py evalmetrics --only soft_pairs --json bench.json

A row holds the median seconds of both sides, their ratio (peer over ours), the error of our result against a float64
reference, the bar and whether it is met. A peer that is not installed is shown as such and never counts as met.
"""

import argparse
import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from harness import environment
from harness.measure import Benchmark
from harness.output import show, write
from harness.runner import Bench, Settings

from quartet import results

SCRIPTS = Path(__file__).resolve().parent
BUSY = 0.5  # load of the last minute above which a run is called unreliable


class UserError(Exception):
    """A fault of the user; shown as one line."""


def packages() -> list[str]:
    """Names of the packages that have benchmarks: one file each in `scripts/benchmarks`."""
    return sorted(path.stem for path in (SCRIPTS / "benchmarks").glob("[a-z]*.py"))


def chosen(package: str, only: list[str], settings: Settings) -> list[Benchmark]:
    """Return the benchmarks of a package, or those named.

    Raises:
        UserError: the package or a name does not exist.
    """
    if package not in packages():
        raise UserError(f"no benchmarks of {package!r}; there are: {', '.join(packages())}")
    every = importlib.import_module(f"benchmarks.{package}").benchmarks(settings)
    names = [benchmark.name for benchmark in every]
    for name in only:
        if name not in names:
            raise UserError(f"{package} has no benchmark {name!r}; it has: {', '.join(names)}")
    return [benchmark for benchmark in every if not only or benchmark.name in only]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", help=f"one of: {', '.join(packages())}")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this benchmark; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to this file as well")
    parser.add_argument("--setup", action="store_true", help="install the peers' environments into .peers/ and stop")
    parser.add_argument("--golden", action="store_true", help="recompute the peers' values kept by the tests, and stop")
    parser.add_argument("--data", type=Path, default=os.environ.get("QUARTET_DATA"), help="public data (QUARTET_DATA)")
    parser.add_argument("--size", type=int, help="edge of the volumes, for a quick trial; no bar applies then")
    parser.add_argument("--threads", type=int, default=2, help="cores that either side may use (2)")
    parser.add_argument("--repetitions", type=int, help="pairs a row; default: as many as fit in a few seconds")
    return parser.parse_args(arguments)


def limit_threads(threads: int) -> int:
    """Confine this process, and those it starts, to so many cores; must come before JAX is imported."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))[:threads]
        os.sched_setaffinity(0, cores)
        threads = len(cores)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    return threads


def keep_golden(package: str, settings: Settings) -> Path:
    """Let the peers compute the golden values of a package and store them, with versions, beside its tests."""
    module = importlib.import_module(f"benchmarks.{package}")
    inputs = module.golden_inputs()
    with environment.Worker(module.GOLDEN_ENVIRONMENT, settings.threads) as worker:
        values = worker.golden(module.GOLDEN_MODULE, inputs)
        versions = {name: worker.versions[name] for name in module.GOLDEN_VERSIONS}
    file = SCRIPTS.parent / "tests" / package / "peers.json"
    content = {"versions": versions, "inputs": inputs, "values": values}
    return results.write_text(file, json.dumps(content) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    settings = Settings(options.data and Path(options.data), options.size, limit_threads(options.threads))
    try:
        benchmarks = chosen(options.package, options.only, settings)
        if options.setup:
            for name in environment.environments():
                environment.set_up(name)
            return 0
        if options.golden:
            print(keep_golden(options.package, settings))
            return 0
    except (UserError, FileNotFoundError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"bench: the machine is busy (load {load:.1f}): ratios of this run cannot be relied on", file=sys.stderr)
    measured, failed, bench = [], [], Bench(settings, options.repetitions)
    for benchmark in benchmarks:
        print(f"{benchmark.name}: {benchmark.about}", file=sys.stderr)
        try:
            measured.extend(bench.rows(benchmark))
        except Exception:  # a fault of ours in one benchmark must not cost the rows of the others
            traceback.print_exc()
            failed.append(benchmark.name)
    header = results.provenance() | {
        "package": options.package,
        "threads": settings.threads,
        "load": load,
        "peers": bench.versions,
    }
    show(measured, f"{options.package} at {header['commit']}: {header['hardware']}, {settings.threads} threads")
    if options.json:
        write(options.json, header, measured)
    if failed:
        print(f"bench: failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
