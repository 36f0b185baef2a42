"""Relational sum-product networks, written out for the parts that are at hand.

A class of things has latent subclasses; given its subclass, the attributes of a thing are independent leaves, each of
its unique parts is a thing of another class, and its exchangeable parts, a list of any length, follow a template: they
are alike and independent given the subclass (iid), or each depends on the one before through its subclass (a chain);
their number may have a leaf of its own. Grounding gives a circuit, linear in the number of parts.

Source: reconstruction of Nath, Domingos, *Learning relational sum-product networks*, 2015, from its abstract.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, cast

import numpy as np

from faultloc.circuit import Node
from faultloc.models import Model, log_odds, numbers, potentials, standardised
from faultloc.programs import Program


class Attribute(NamedTuple):
    """A leaf of a class: a table `[K, values]`, or Gaussian moments `[K, 2]`."""

    kind: Literal["categorical", "gaussian"]
    parameters: np.ndarray


class Part(NamedTuple):
    """Unique part of a class.

    Attributes:
        of: class of the part.
        table: `[K, K']` probability of the part's subclass given the whole's.
    """

    of: str
    table: np.ndarray


class Exchangeable(NamedTuple):
    """Any number of parts in a list.

    Attributes:
        of: class of the parts.
        table: `[K, K']` probability of a part's subclass given the whole's; with a chain, of the first part's.
        chain: `[K, K', K']` of the next part's subclass, last axis, given the whole's and the part's before; None: iid.
        length: `[K, most + 1]` probability of each number of parts; None: their number is given.
    """

    of: str
    table: np.ndarray
    chain: np.ndarray | None = None
    length: np.ndarray | None = None


class Class(NamedTuple):
    """What things of a kind consist of."""

    attributes: Mapping[str, Attribute]
    parts: Mapping[str, Part | Exchangeable]


class Thing(NamedTuple):
    """A thing at hand.

    Attributes:
        of: its class.
        variables: variable of each attribute; `NAME/length` is the number of parts in the list NAME.
        parts: by name, a sequence where they are exchangeable.
    """

    of: str
    variables: Mapping[str, int]
    parts: Mapping[str, "Thing | Sequence[Thing]"]


def ground(classes: Mapping[str, Class], prior: np.ndarray, thing: Thing) -> list[Node]:
    """Write the circuit of a thing out.

    Args:
        classes: by name.
        prior: `[K]` probability of the subclasses of the thing itself.
        thing: with its parts.

    Returns:
        Nodes for `circuit.build`.
    """
    grounding = _Grounding(classes)
    inside = grounding.subclasses(thing)
    grounding.mix(inside, np.asarray(prior))
    return grounding.nodes


class _Grounding:
    def __init__(self, classes: Mapping[str, Class]) -> None:
        self._classes, self.nodes = classes, list[Node]()

    def add(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.nodes) - 1

    def mix(self, inside: Sequence[int], weights: np.ndarray) -> int:
        return self.add(Node("sum", tuple(inside), tuple(weights.tolist())))

    def subclasses(self, thing: Thing) -> list[int]:
        """A node for each subclass of a thing: everything about it and its parts."""
        kind = self._classes[thing.of]
        factors: list[list[int]] = []
        for name, variable in thing.variables.items():
            attribute = _attribute(kind, name)
            factors.append([self._leaf(attribute, k, variable) for k in range(len(attribute.parameters))])
        for name, given in thing.parts.items():
            template = kind.parts[name]
            if isinstance(template, Part):
                inside = self.subclasses(cast(Thing, given))
                factors.append([self.mix(inside, row) for row in template.table])
            else:
                factors += self._list(template, [self.subclasses(part) for part in cast(Sequence[Thing], given)])
        return [self.add(Node("product", column)) for column in zip(*factors, strict=True)]

    def _leaf(self, attribute: Attribute, k: int, variable: int) -> int:
        row = tuple(attribute.parameters[k].tolist())
        if attribute.kind == "gaussian":
            return self.add(Node("leaf", variable=variable, gaussian=row))
        return self.add(Node("leaf", variable=variable, table=row))

    def _list(self, template: Exchangeable, parts: list[list[int]]) -> list[list[int]]:
        """Factors of a list for each subclass of the whole."""
        if template.chain is None:
            return [[self.mix(inside, row) for row in template.table] for inside in parts]
        if not parts:
            return []
        ends = []
        for k, first in enumerate(template.table):
            inside = parts[-1]
            for before in reversed(parts[:-1]):
                after = [self.mix(inside, row) for row in template.chain[k]]
                inside = [self.add(Node("product", pair)) for pair in zip(before, after, strict=True)]
            ends.append(self.mix(inside, first))
        return [ends]


def _attribute(kind: Class, name: str) -> Attribute:
    """An attribute of a class, or the length of one of its lists.

    Raises:
        ValueError: there is neither.
    """
    if name in kind.attributes:
        return kind.attributes[name]
    template = kind.parts.get(name.removesuffix("/length"))
    if not isinstance(template, Exchangeable) or template.length is None:
        raise ValueError(f"no attribute {name!r} in the class; there are {', '.join(kind.attributes) or 'none'}")
    return Attribute("categorical", template.length)


def ground_program(model: Model, program: Program) -> tuple[list[Node], np.ndarray]:
    """Write out what a model says about a program, an implementation of its own beside `faultloc.tflm`.

    The first variables say whether each line is faulty, the next ones hold its generated features, the last ones stand
    for what is known of the syntax tree: the value 0 of each has the probability of what was seen.

    Args:
        model: see `faultloc.models`.
        program: of its language.

    Returns:
        Nodes for `circuit.build`, and the row of what is observed, `[V]`, NaN for the faults.

    Source: every statement is a thing with the enclosed ones as its exchangeable parts, iid given its subclass.
    """
    given, lines, width = potentials(model, program), len(program.owner), len(model.generated)
    chance = 1 / (1 + np.exp(-log_odds(model, program)))
    row = [np.nan] * lines + [0.0] * (lines * width)
    grounding = _Grounding({})
    line = {int(owner): i for i, owner in enumerate(program.owner)}
    inside: dict[int, list[list[int]]] = {}

    x, kinds = standardised(model, program), numbers(model, program.symbols)
    for n in range(len(program.symbols) - 1, -1, -1):
        here, children = [], inside.pop(n, [])
        seen = len(row)
        row += [0.0]
        for k in range(model.subclasses):
            more = model.branching[kinds[n], k]
            share = more ** len(children) * (1 - more)
            factors = [grounding.add(Node("leaf", variable=seen, table=(share, 1 - share)))]
            factors += [each[k] for each in children]
            if n in line:
                i = line[n]
                factors.append(grounding.add(Node("leaf", variable=i, table=(1 - chance[i, k], chance[i, k]))))
                for a, feature in enumerate(model.generated):
                    variable = lines + i * width + a
                    row[variable] = x[i, feature]
                    moments = float(model.centre[kinds[n], k, a]), float(model.spread[kinds[n], k, a])
                    factors.append(grounding.add(Node("leaf", variable=variable, gaussian=moments)))
            here.append(grounding.add(Node("product", tuple(factors))))
        above = int(program.parent[n])
        if above < 0:
            inside.setdefault(-1, []).append([grounding.mix(here, np.exp(model.prior))])
            continue
        # A row of the table holds the probability of the inner kind too, which is known: its mass is a factor.
        table = np.exp(model.table[given.relation[n]])
        seen = len(row)
        row += [0.0]
        sent = []
        for weights in table:
            mass = float(weights.sum())
            factor = grounding.add(Node("leaf", variable=seen, table=(mass, 1 - mass)))
            sent.append(grounding.add(Node("product", (factor, grounding.mix(here, weights / mass)))))
        inside.setdefault(above, []).append(sent)
    grounding.add(Node("product", tuple(each[0] for each in inside[-1])))
    return grounding.nodes, np.array(row)
