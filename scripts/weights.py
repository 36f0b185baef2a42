"""Learn the models that ship with faultloc: of Python from BugsInPy, of C from SIR.

    QUARTET_DATA=FOLDER python scripts/weights.py

A model holds weights of features and offsets of kinds of statements; no source, no coverage of the collections.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from omegaconf import OmegaConf  # noqa: E402

from faultloc import corpus, learn, models, rankers  # noqa: E402
from faultloc.programs import program  # noqa: E402

SOURCES = {"python": "bugsinpy", "c": "sir"}


def main() -> None:
    """Write `faultloc/weights/<language>.npz`."""
    options = OmegaConf.load(ROOT / "configs" / "faultloc" / "ranker" / "posterior.yaml")
    for language, collection in SOURCES.items():
        bugs = corpus.load(collection)
        examples = [learn.Example(program(bug.recording, bug.statements()), bug.faulty) for bug in bugs]
        model = learn.fit(examples, ridge=options.ridge, steps=options.steps)
        path = models.save(rankers.WEIGHTS / f"{language}.npz", model)
        print(f"{path}: {len(bugs)} bugs of {collection}, {len(model.symbols)} kinds, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
