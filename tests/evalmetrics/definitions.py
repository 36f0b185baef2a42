"""Float64 NumPy definitions of the scores, written from the formulas with no loop, chunk or shortcut in common."""

import itertools

import numpy as np


def random_map(rng, regions, shape, *, sharp=1.0):
    return np.moveaxis(rng.dirichlet(np.full(regions, sharp), shape), -1, 0).astype(np.float32)


def one_hot(labels, regions):
    return (labels[None] == np.arange(regions).reshape(-1, *[1] * labels.ndim)).astype(np.float64)


def membership(p, eps):
    top = np.log((1 - eps) / eps)
    clipped = np.clip(p, eps, 1 - eps)
    return (np.log(clipped / (1 - clipped)) + top) / (2 * top)


def pair_sums(kernel, p, q, w, eps):
    """Disagreement and mass of one pair of regions."""
    if kernel == "abs":
        return (w * abs(p - q)).sum(), (w * (p + q)).sum()
    if kernel == "ait":
        w = w * np.maximum(p, q)
        m, n = membership(p, eps), membership(q, eps)
        return (w * abs(m - n)).sum(), (w * (m + n)).sum()
    assert kernel == "simplex_tv"
    return (w * abs(p - q)).sum() / 2, w.sum()


def flatten(soft_map, weights):
    flat = np.asarray(soft_map, np.float64).reshape(len(soft_map), -1)
    return flat, np.ones(flat.shape[1]) if weights is None else np.asarray(weights, np.float64).ravel()


def pair_tables(kernel, p, q, *, weights=None, eps=0.01):
    p, w = flatten(p, weights)
    q, _ = flatten(q, None)
    tables = np.array([[pair_sums(kernel, a, b, w, eps) for b in q] for a in p])
    return tables[..., 0], tables[..., 1]


def pad(x, size):
    return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]))])


def region_scores(kernel, p, q, *, weights=None, eps=0.01):
    """Padded matrix of region scores, 0/0 := 1."""
    size = max(len(p), len(q))
    num, den = pair_tables(kernel, pad(np.asarray(p), size), pad(np.asarray(q), size), weights=weights, eps=eps)
    return np.where(den > 0, 1 - num / np.where(den > 0, den, 1), 1), num, den


def best_permutation(gain):
    """Brute force; the lowest permutation among the best."""
    size = len(gain)
    totals = {p: sum(gain[i, j] for i, j in enumerate(p)) for p in itertools.permutations(range(size))}
    best = max(totals.values())
    return min(p for p, total in totals.items() if total >= best - 1e-12), best


def clr(p, eps, size):
    lifted = np.maximum(pad(np.asarray(p, np.float64), size), eps)
    logs = np.log(lifted / lifted.sum(0))
    return logs - logs.mean(0)


def whole_map_aitchison(p, q, *, weights=None, eps=0.01):
    """Score and matching by brute force over the squared cost, then the distance itself."""
    size = max(len(p), len(q))
    (a, w), (b, _) = flatten(p, weights), flatten(q, None)
    a, b = clr(a, eps, size), clr(b, eps, size)
    cost = np.array([[(w * (x - y) ** 2).sum() for y in b] for x in a])
    match, _ = best_permutation(-cost)
    distance = np.linalg.norm(a - b[list(match)], axis=0)
    norms = np.linalg.norm(a, axis=0) + np.linalg.norm(b, axis=0)
    return 1 - (w * distance).sum() / (w * norms).sum(), match
