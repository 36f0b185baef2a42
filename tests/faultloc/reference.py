"""Slow definitions that the fast implementations are held against: every assignment, in float64."""

import itertools

import numpy as np
from scipy.stats import norm


def joint(model, program, subclasses):
    """Log-probability of subclasses and of what is generated, from the fields of the model one by one."""
    number = {name: i for i, name in enumerate(model.symbols)}
    kind = [number.get(name, len(number)) for name in program.symbols]
    row = {tuple(pair): i for i, pair in enumerate(model.pairs.tolist())}
    line = {int(owner): i for i, owner in enumerate(program.owner)}
    total = 0.0
    for n, z in enumerate(subclasses):
        above = int(program.parent[n])
        if above < 0:
            total += model.prior[z]
        else:
            total += model.table[row.get((kind[above], kind[n]), len(row)), subclasses[above], z]
        more = model.branching[kind[n], z]
        total += int((program.parent == n).sum()) * np.log(more) + np.log(1 - more)
        if n in line:
            x = (program.values[line[n]] - model.mean) / model.scale
            for a, feature in enumerate(model.generated):
                total += norm.logpdf(x[feature], model.centre[kind[n], z, a], model.spread[kind[n], z, a])
    return total


def odds(model, program, line, subclass):
    """Log-odds of a fault at a line."""
    name = program.symbols[program.owner[line]]
    kind = model.symbols.index(name) if name in model.symbols else len(model.symbols)
    x = (program.values[line] - model.mean) / model.scale
    return float(x @ model.weights[subclass] + model.offsets[kind, subclass])


def single_fault(model, program, buggy=()):
    """`[L]` probability of one fault beside the known ones, summed over all subclasses of all statements."""
    lines = len(program.owner)
    found = np.zeros(lines)
    for z in itertools.product(range(len(model.prior)), repeat=len(program.symbols)):
        chance = np.array([odds(model, program, i, z[program.owner[i]]) for i in range(lines)])
        value = joint(model, program, z)
        for line in set(range(lines)) - set(buggy):
            faulty = np.isin(np.arange(lines), [line, *buggy])
            found[line] += np.exp(value + (faulty * chance - np.logaddexp(0, chance)).sum())
    return found / found.sum()
