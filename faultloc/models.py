"""A learned model of where faults are: its parameters, its file, and the posterior over the lines of a program.

Legend: S kinds of statements (symbols), K latent subclasses, F features, A of them generated, R pairs of kinds of which
the first encloses the second.

A file is an `.npz` without pickled objects: the arrays, and a JSON header with the version of the format, the language,
the symbol table and the names of the features. A model says nothing about a tree of another language and refuses it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from faultloc import features
from faultloc.io import InputError, load_arrays
from faultloc.programs import Program
from faultloc.writing import whole

if TYPE_CHECKING:
    from faultloc import intervals

VERSION = 1
_NAMED: dict[str, type] = {"language": str, "learner": str, "symbols": list, "features": list}  # of the header


class Model(NamedTuple):
    """What was learned.

    A line of kind s and subclass k has the log-odds of a fault o = weights[k] . (x - mean) / scale + offsets[s, k].

    Attributes:
        language: of the programs it was learned from.
        learner: how it was learned.
        symbols: `S` names.
        features: `F` names.
        mean, scale: `[F]` of the features of the training lines.
        weights: `[K, F]` of the standardised features.
        offsets: `[S + 1, K]`; the last row is for a kind that was not seen.
        prior: `[K]` log-probability of the subclass of a root.
        pairs: `[R, 2]` kinds of a statement and of one that it encloses, in ascending order.
        table: `[R + 1, K, K]` log-probability of the inner statement, its subclass on the last axis, given the outer
            one's subclass; the last row is for a pair that was not seen.
        generated: `[A]` features that the subclass also generates, Gaussian each.
        centre, spread: `[S + 1, K, A]` of these, standardised.
        branching: `[S + 1, K]` probability that a statement encloses one more; 1/2 throughout says nothing.
    """

    language: str
    learner: str
    symbols: tuple[str, ...]
    features: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    prior: np.ndarray
    pairs: np.ndarray
    table: np.ndarray
    generated: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    branching: np.ndarray

    @property
    def subclasses(self) -> int:
        """K."""
        return len(self.prior)


class Potentials(NamedTuple):
    """What a model says about the statements of one program, before they are put together.

    Attributes:
        relation: `[N]` row of `Model.table` that leads to each statement; that of a root is not used.
        evidence: `[N, K]` log-probability of what is generated at each statement.
        odds: `[N, K]` log-odds of a fault; -inf at a statement that answers for no line.
    """

    relation: np.ndarray
    evidence: np.ndarray
    odds: np.ndarray


def check(model: Model, program: Program) -> None:
    """Refuse a program that the model says nothing about.

    Raises:
        InputError: it is in another language.
    """
    if program.language != model.language:
        raise InputError(
            f"this model was learned from {model.language} programs, the program is in {program.language}; choose or "
            f"train a model of {program.language}, or rank by a formula"
        )


def numbers(model: Model, symbols: Sequence[str]) -> np.ndarray:
    """Row of each kind of statement in what the model has for kinds, S for one that was not seen."""
    number = {name: i for i, name in enumerate(model.symbols)}
    return np.array([number.get(name, len(number)) for name in symbols], np.int64)


def log_odds(model: Model, program: Program) -> np.ndarray:
    """`[L, K]` log-odds of a fault at each line by subclass."""
    return standardised(model, program) @ model.weights.T + model.offsets[numbers(model, program.kinds)]


def standardised(model: Model, program: Program) -> np.ndarray:
    """`[L, F]` features with the mean and the deviation of the training lines taken out."""
    chosen = [features.NAMES.index(name) for name in model.features]
    return (program.values[:, chosen] - model.mean) / model.scale


def potentials(model: Model, program: Program) -> Potentials:
    """What the model says about each statement of a program.

    Raises:
        InputError: see `check`.
    """
    check(model, program)
    kind, unseen = numbers(model, program.symbols), len(model.symbols)
    size = len(kind)
    above = np.maximum(program.parent, 0)
    code = model.pairs @ np.array([unseen + 1, 1])
    wanted = kind[above] * (unseen + 1) + kind
    row = np.minimum(np.searchsorted(code, wanted), max(len(code) - 1, 0))
    relation = np.where(code[row] == wanted, row, len(code)) if len(code) else np.zeros(size, np.int64)
    children = np.bincount(above[program.parent >= 0], minlength=size)[:, None]
    more = model.branching[kind]
    evidence = children * np.log(more) + np.log1p(-more)
    x = standardised(model, program)[:, model.generated][:, None]
    centre, spread = model.centre[kind[program.owner]], model.spread[kind[program.owner]]
    evidence[program.owner] += (-(((x - centre) / spread) ** 2) / 2 - np.log(spread) - np.log(2 * np.pi) / 2).sum(-1)
    odds = np.full(evidence.shape, -np.inf)
    odds[program.owner] = log_odds(model, program)
    return Potentials(relation.astype(np.int32), evidence, odds)


def moving(model: Model, program: Program, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The log-odds as a linear function of some features, `[L, K]` what does not depend on them and `[M, K]` slopes.

    Args:
        model: of the program's language.
        program: whose log-odds.
        names: of the M features; one that the model does not look at has slope zero.
    """
    place = {name: i for i, name in enumerate(model.features)}
    slopes = model.weights / model.scale
    slope = np.stack([slopes[:, place[n]] if n in place else np.zeros(model.subclasses) for n in names])
    values = program.values[:, [features.NAMES.index(name) for name in names]]
    return log_odds(model, program) - values @ slope, slope


def latent(model: Model, program: Program, names: Sequence[str], function: np.ndarray) -> "intervals.Latent":
    """What a model of several subclasses says of a program apart from some features, which coverage moves.

    Args:
        model: of the program's language.
        program: with its coverage as it is.
        names: of the features.
        function: `[L]` number of the function around each line, from 0.
    """
    from faultloc import intervals, tflm

    fixed, slope = moving(model, program, names)
    given = potentials(model, program)
    kind = numbers(model, program.kinds)
    centre, precision = np.zeros((2, *fixed.shape, len(names)))
    for a, feature in enumerate(model.generated):
        name = model.features[feature]
        if name in names:
            at, scale = names.index(name), model.scale[feature]
            centre[..., at] = model.mean[feature] + scale * model.centre[kind][..., a]
            precision[..., at] = 1 / (scale * model.spread[kind][..., a]) ** 2
    values = program.values[:, [features.NAMES.index(name) for name in names]][:, None]
    given.evidence[program.owner] += ((values - centre) ** 2 * precision).sum(2) / 2
    fixed, slope, evidence, centre, precision = (
        np.asarray(x, np.float32) for x in (fixed, slope, given.evidence, centre, precision)
    )
    return intervals.Latent(
        fixed, slope, function.astype(np.int32), evidence, program.owner.astype(np.int32), centre, precision,
        tflm.schedule(program.parent), tflm.Tables(*(np.asarray(x, np.float32) for x in (model.prior, model.table))),
        given.relation,
    )  # fmt: skip


def rank(
    model: Model, program: Program, *, clean: tuple[int, ...] = (), buggy: tuple[int, ...] = ()
) -> np.ndarray:  # fmt: skip
    """Log-probability that the one fault, beside those already known, is at each line.

    Args:
        model: of the program's language.
        program: to rank.
        clean: indices in `[L]` of lines known to be sound, see `cases.locate`; they have probability zero.
        buggy: of lines known to be faulty; likewise, and the others are ranked as places of one more fault.

    Returns:
        `[L]`, the exponentials adding up to one.

    Raises:
        InputError: the model is of another language, or no line is left.
    """
    check(model, program)
    left = np.ones(len(program.owner), bool)
    left[[*clean, *buggy]] = False
    if not left.any():
        raise InputError("every line is known to be clean or faulty; there is nothing left to rank")
    scores = np.where(left, _single(model, program, buggy), -np.inf)
    return scores - np.logaddexp.reduce(scores)


def _single(model: Model, program: Program, buggy: tuple[int, ...]) -> np.ndarray:
    if model.subclasses == 1:
        return log_odds(model, program)[:, 0]
    from faultloc import faults, tflm

    given = potentials(model, program)
    known = program.owner[list(buggy)]
    # A known fault is evidence for the subclass of its statement: log sigmoid(o) in place of log(1 - sigmoid(o)).
    given.evidence[known] += given.odds[known]
    tables = tflm.Tables(model.prior, model.table)
    return np.asarray(faults.posterior(program.parent, tables, *given), np.float64)[program.owner]


def save(path: str | Path, model: Model) -> Path:
    """Write a model, all of it or nothing.

    Returns:
        The file; `.npz` is appended where the name does not end so.
    """
    path = Path(path)
    path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
    header = {"version": VERSION, **{name: getattr(model, name) for name in _NAMED}}
    arrays = {name: value for name, value in model._asdict().items() if name not in _NAMED}
    with whole(path, "wb") as file:
        np.savez_compressed(file, header=np.array(json.dumps(header)), **arrays)
    return path


def load(path: str | Path) -> Model:
    """Read a model.

    Raises:
        InputError: the file is missing, damaged, not a model, or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such model; train one, or give the .npz file of one")
    try:
        arrays = load_arrays(path)
        header = json.loads(str(arrays.pop("header")))
        version = header.get("version")
    except (ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a saved model, or a damaged one; train it again, or give another") from error
    if version != VERSION:
        raise InputError(f"{path}: version {version} of the format, this program reads {VERSION}")
    if lost := [name for name, kind in _NAMED.items() if not _holds(header.get(name), kind)]:
        raise InputError(
            f"{path}: the header of the model lacks {', '.join(lost)}; the file is damaged, train it again"
        )
    strange = set(header["features"]) - set(features.NAMES)
    if strange:
        raise InputError(f"{path}: this program does not measure {', '.join(sorted(strange))}; train the model again")
    named: dict[str, Any] = {name: header[name] for name in ("language", "learner")}
    named |= {name: tuple(header[name]) for name in ("symbols", "features")}
    missing = set(Model._fields) - set(named) - set(arrays)
    if missing:
        raise InputError(f"{path}: the model lacks {', '.join(sorted(missing))}; the file is damaged, train it again")
    return Model(**named, **{name: arrays[name] for name in Model._fields if name not in named})  # type: ignore[arg-type]


def _holds(value: Any, kind: type) -> bool:
    """Whether a value is a text or a list of texts."""
    return isinstance(value, str | list) and isinstance(value, kind) and all(isinstance(part, str) for part in value)
