"""Public benchmarks as cases of an experiment: what they read, what they add up, what they report."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np

from evalmetrics import annotators, data, hierarchy, mixture, tissue, tracts
from evalmetrics.io import InputError
from evalmetrics.options import Scoring
from evalmetrics.volumes import Volume


def score_options(scoring: Scoring) -> dict[str, Any]:
    """The options of `scores.score` that a config says, for a benchmark of unordered regions without a background.

    Raises:
        InputError: the config asks for an order or a background.
    """
    if scoring.match.method == "ordered" or scoring.regions.background is not None:
        raise InputError("match=ordered, regions.background: this benchmark has unordered regions and no background")
    options: dict[str, Any] = {
        "kernel": scoring.kernel.name,
        "eps": scoring.zeros.eps,
        "zeros": scoring.zeros.method,
        "objective": scoring.match.objective,
        "method": scoring.match.method,
        "empty": scoring.regions.empty,
    }
    return options if scoring.match.temperature is None else options | {"temperature": scoring.match.temperature}


class OneCase(ABC):
    """A benchmark that is a single case and adds nothing up."""

    def __len__(self) -> int:
        return 1

    def totals(self) -> np.ndarray:
        """Nothing."""
        return np.zeros(0)

    def score(self, index: int, totals: Any, **_: Any) -> tuple[Any, dict[str, Any]]:  # noqa: ARG002
        """Compute the one row."""
        return totals, self.row()

    @abstractmethod
    def row(self) -> dict[str, Any]:
        """What the benchmark finds."""


class Bsds:
    """Images of BSDS500, one case each.

    Args:
        path: folder of the data set; None looks under QUARTET_DATA.
        limit: at most this many images; None takes all.
    """

    def __init__(self, path: str | None, limit: int | None) -> None:
        self._set = data.Bsds500(path)
        self._names = self._set.names[:limit]

    def __len__(self) -> int:
        return len(self._names)


class RegionBenchmark(Bsds):
    """A hierarchy of regions against the annotators, at every threshold."""

    def totals(self) -> hierarchy.Tally:
        """No image counted yet."""
        return hierarchy.empty()

    def score(self, index: int, totals: Any, **_: Any) -> tuple[Any, dict[str, Any]]:
        """Count one image; the row holds the figures of all images so far."""
        name = self._names[index]
        totals = hierarchy.add(totals, hierarchy.tally(self._set.ucm2(name), self._set.annotations(name)))
        return totals, {"case": name, **hierarchy.summary(totals)}


class AnnotatorAgreement(Bsds):
    """Annotators against each other, and levels of the hierarchy against annotators."""

    def totals(self) -> tuple[annotators.Agreement, annotators.Agreement]:
        """No pair counted yet."""
        return annotators.empty(), annotators.empty((len(annotators.THRESHOLDS),))

    def score(self, index: int, totals: Any, **_: Any) -> tuple[Any, dict[str, Any]]:
        """Count the pairs of one image; the row holds the means of all pairs so far."""
        name = self._names[index]
        maps = self._set.annotations(name)
        parts = annotators.annotator_agreement(maps), annotators.hierarchy_agreement(self._set.ucm2(name), maps)
        totals = tuple(annotators.add(total, part) for total, part in zip(totals, parts, strict=True))
        macro, micro = annotators.mean(totals[0])
        row = {"case": name, "annotators/macro": float(macro), "annotators/micro": float(micro)}
        for level, *means in zip(annotators.THRESHOLDS, *annotators.mean(totals[1]), strict=True):
            row |= {f"gPb-ucm {level}/{kind}": float(m) for kind, m in zip(("macro", "micro"), means, strict=True)}
        return totals, row


class TractRecovery(OneCase):
    """PAM50 against AMU7T: how many tracts the matching finds by overlap alone.

    Args:
        path: folder of both atlases; None looks under QUARTET_DATA.
        onto: the grid, see `data.spinal_cord`.
        scoring: objective of the matching, and kernel.
    """

    def __init__(self, path: str | None, onto: Any, scoring: Scoring) -> None:
        self._cord, self._scoring = data.spinal_cord(path, onto=onto), scoring

    def row(self) -> dict[str, Any]:
        """Tracts recovered, and the scores."""
        found = tracts.tract_recovery(
            self._cord.maps,
            self._cord.labels,
            self._cord.partners,
            objective=self._scoring.match.objective,
            kernel=self._scoring.kernel.name,
            eps=self._scoring.zeros.eps,
            zeros=self._scoring.zeros.method,
        )
        missed = [name for name, right in zip(self._cord.map_names, found.recovered, strict=True) if not right]
        counts = {"recovered": int(found.recovered.sum()), "tracts": len(found.recovered)}
        return {"case": "PAM50", **counts, "macro": found.scores.macro, "micro": found.scores.micro, "missed": missed}


class TissueMixture(OneCase):
    """MNI ICBM152: unordered classes of a Gaussian mixture against grey matter, white matter and the rest.

    Args:
        classes: K.
        tolerance: of the fit.
        iterations: of the fit, at most.
        scoring: kernel.
    """

    NAMES = ("grey matter", "white matter", "rest")

    def __init__(self, classes: int, tolerance: float, iterations: int, scoring: Scoring) -> None:
        self._classes, self._scoring = classes, scoring
        self._fit: dict[str, Any] = {"tolerance": tolerance, "iterations": iterations}

    def row(self) -> dict[str, Any]:
        """Scores of the classes, and where they lie."""
        self._mni = data.mni152()
        brain = tissue.tissues(self._mni.t1, self._mni.grey, self._mni.white)
        self._found = tissue.tissue_mixture(brain, self._classes, **self._fit, **score_options(self._scoring))
        fitted = self._found.mixture
        return {
            "case": f"{self._classes} classes",
            **{name: np.asarray(value) for name, value in self._found.scores._asdict().items()},
            "reference_names": list(self.NAMES),
            "prediction_names": [f"class {index + 1}" for index in range(self._classes)],
            "reference": "tissue maps",
            "prediction": "mixture of the T1 image",
            "iterations": int(fitted.iterations),
            "class_mean": np.asarray(fitted.mean),
        }

    def report(self, rows: list[dict[str, Any]], folder: Path) -> None:
        """The page of a scored case, and a picture of the classes beside the tissues."""
        from evalmetrics import report, scoring

        volumes = self._volumes()
        report.write(
            rows,
            folder,
            title=f"{self._classes} mixture classes against brain tissue",
            settings=scoring.describe(self._scoring),
            load=lambda *_: volumes,
        )
        # The same plane for every number of classes, through the ventricles, so that pictures can be compared.
        report.save_slice(rows[-1], *volumes, folder / "slice.png", place=tuple(n // 2 for n in volumes[0].shape))

    def _volumes(self) -> tuple[Volume, Volume]:
        """Tissues and classes as volumes, with a region for what lies outside the brain taken away from all."""
        mni, brain = self._mni, self._mni.t1 > 0
        rest = np.clip(1 - mni.grey - mni.white, 0, 1)
        maps = np.stack([mni.grey, mni.white, rest]) * brain
        soft = np.zeros((self._classes, *brain.shape), np.float32)
        soft[:, brain] = mixture.posterior(self._found.mixture, mni.t1[brain])
        names = tuple(f"class {index + 1}" for index in range(self._classes))
        spacing = (1.0, 1.0, 1.0)
        return (
            Volume(maps.astype(np.float32), mni.affine, spacing, self.NAMES, None, "tissue maps"),
            Volume(soft, mni.affine, spacing, names, None, "mixture"),
        )


class SelfSimilarity(OneCase):
    """MNI ICBM152: the tissue maps against themselves, by this package and by the product form of soft Dice."""

    def row(self) -> dict[str, Any]:
        """Both scores."""
        mni = data.mni152()
        brain = tissue.tissues(mni.t1, mni.grey, mni.white)
        found = tissue.soft_self_similarity(brain.reference)
        return {"case": "tissue maps", "matched": found.matched, "product": found.product}
