"""Answers that the basis deflates, and their certificates, against dense solves."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwalk import bounds, deflate, eigen, graph, interact, options, prepared, solve
from rwalk.stencil import to_sparse
from tests.rwalk.test_eigen import noisy_box

SHAPE, VOLUME, REGIONS, GAMMA = (26, 27), (8, 7, 9), 3, 0.05


@pytest.fixture(scope="module")
def setting():
    """A graph in float64 with weak pieces, its lowest pairs, seeds and priors."""
    with jax.enable_x64(True):
        image = noisy_box(SHAPE, 0.2)
        for place in ((3, 3), (16, 4), (9, 9)):
            image[place[0] : place[0] + 2, place[1]] = 3.0  # pieces that no coarse lattice shows
        lattice = graph.build(jnp.asarray(image)[None], beta=100.0, eps=1e-5)
        basis = eigen.smallest_eigenpairs(lattice, 12, method="dense")
        seeds = np.full(SHAPE, -1)
        seeds[0, 0], seeds[10, 10], seeds[18, 18], seeds[2, 17] = 0, 1, 2, 0
        p = np.random.default_rng(0).dirichlet(np.ones(REGIONS), SHAPE).transpose(2, 0, 1)
        yield lattice, basis, jnp.asarray(seeds), jnp.asarray(p)


@pytest.fixture(scope="module")
def graphs(setting):
    """That graph, and a volume whose mask leaves two pieces and a lone voxel; each ready for seeds and for both."""
    with jax.enable_x64(True):
        mask = np.ones(VOLUME, bool)
        mask[:, 3] = mask[0, :2, 0] = mask[1, 0, 0] = mask[0, 0, 1] = False
        mask[0, 0, 0] = True
        image = np.random.default_rng(1).normal(0, 0.4, VOLUME)
        volume = graph.build(jnp.asarray(image)[None], beta=20.0, mask=mask)
        pairs = eigen.smallest_eigenpairs(volume, 6, method="dense")
        yield [
            (lattice, prepared.prepare(lattice, basis), prepared.prepare(lattice, basis, gamma=GAMMA))
            for lattice, basis in (setting[:2], (volume, pairs))
        ]


def exactly(lattice, seeds, priors=None, gamma=0.0):
    x = solve.random_walker(lattice, regions=REGIONS, seeds=seeds, priors=priors, gamma=gamma, tol=1e-13, maximum=2000)
    return x.x.reshape(REGIONS, -1)


def densely(lattice, at, labels, p=None):
    """(L_U + gamma R_U) x_U = gamma R_U p_U - B^T x_S by a dense solve; zero where no seed or prior reaches."""
    matrix, mass = to_sparse(graph.stencil_of(lattice)).toarray(), np.asarray(graph.mass(lattice))
    x = np.zeros((REGIONS, len(mass)))
    free = mass > 0
    right = np.zeros_like(x)
    if p is None:
        pieces = graph.components(lattice).ravel()
        free &= np.isin(pieces, pieces[at])
    else:
        x = np.where((np.asarray(lattice.active).ravel() & ~free)[None], p, x)
        matrix, right = matrix + GAMMA * np.diag(mass), GAMMA * mass * p
    x[:, at] = np.eye(REGIONS)[labels].T
    free[at] = False
    right = right[:, free] - x[:, at] @ matrix[np.ix_(at, free)]
    x[:, free] = np.linalg.solve(matrix[np.ix_(free, free)], right.T).T
    return x


def walk(setting, seeds, tol, **options):
    lattice, basis, _, _ = setting
    flat = np.asarray(seeds).ravel()
    at = np.flatnonzero(flat >= 0)
    ready = prepared.prepare(lattice, basis)
    return deflate.answer(ready, REGIONS, positions=at, labels=flat[at], tol=tol, maximum=300, **options)


def keeps(found, x, mass):
    """The answer is no further off than its bounds, but for rounding."""
    error = np.asarray(found.x - x)
    assert (np.sqrt((error**2 * np.asarray(mass)).sum(1)) <= 1.001 * np.asarray(found.bound) + 1e-10).all()
    assert (np.abs(error).max(0) <= 1.001 * np.asarray(found.pointwise) + 1e-10).all()


def test_it_converges_to_the_exact_answer_and_in_fewer_steps_than_without_the_basis(setting):
    lattice, _, seeds, _ = setting
    answer = walk(setting, seeds, 1e-11)
    np.testing.assert_allclose(answer.x, exactly(lattice, seeds), atol=1e-8)
    plain = solve.random_walker(lattice, regions=REGIONS, seeds=seeds, tol=1e-11, maximum=300)
    assert int(answer.steps) < int(plain.iterations)


def test_a_small_system_that_cannot_be_factored_leaves_the_basis_out(graphs):
    """Rounding may make it indefinite; then multigrid alone goes on to the same answer."""
    with jax.enable_x64(True):
        lattice, ready, _ = graphs[0]
        at, labels = np.array([0, 300, 500]), np.array([0, 1, 2])
        spoiled = replace(ready, energies=10 * jnp.ones_like(ready.energies) - 9 * jnp.eye(len(ready.energies)))
        asked = {"positions": at, "labels": labels, "tol": 1e-11, "maximum": 300}
        found, wanted = (deflate.answer(each, REGIONS, **asked) for each in (spoiled, ready))
        np.testing.assert_allclose(found.x, densely(lattice, at, labels), atol=1e-8)
        assert int(found.steps) > int(wanted.steps)
        free = jnp.asarray(graph.mass(lattice) > 0).at[at].set(False)
        assert not prepared.small(spoiled, free, jnp.asarray(at)).scale.any()


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**31 - 1), st.sampled_from([1e-1, 1e-2, 1e-4]), st.booleans(), st.booleans())
def test_no_answer_is_further_off_than_its_certificate(graphs, seed, tol, priors, flat):
    """Seeds with or without priors, in a plane and in a volume of several pieces, some of them without a seed."""
    with jax.enable_x64(True):
        lattice, *readied = graphs[0 if flat else 1]
        ready, mass = readied[int(priors)], graph.mass(lattice)
        rng = np.random.default_rng(seed)
        at = np.sort(rng.choice(np.flatnonzero(np.asarray(mass) > 0), 9, replace=False))
        labels = rng.permutation([0, 1, 2] * 3)
        p = rng.dirichlet(np.ones(REGIONS), mass.size).T * np.asarray(lattice.active).ravel() if priors else None
        asked = {"priors": None if p is None else jnp.asarray(p), "closed": True, "maximum": 300, "certify": True}
        found = deflate.answer(ready, REGIONS, positions=at, labels=labels, tol=tol, **asked)
        assert np.isfinite(found.bound).all()
        assert float(found.residual) <= tol
        keeps(found, densely(lattice, at, labels, p), mass)


def test_steps_to_fewer_seeds_certify_and_those_to_more_do_not(graphs):
    """Painting: seeds are added and the old steps hold; one is erased and they do not."""
    lattice, ready, _ = graphs[1]
    mass = graph.mass(lattice)
    places = np.flatnonzero(np.asarray(mass) > 0)
    at, labels = places[:: len(places) // 9][:9], np.array([0, 1, 2] * 3)
    pieces = graph.components(lattice).ravel()
    first = next(m for m in range(2, 9) if set(pieces[at[:m]]) == set(pieces[at]))
    asked = {"tol": 1e-3, "maximum": 300, "certify": True}
    before = deflate.answer(ready, REGIONS, positions=at[:first], labels=labels[:first], **asked)
    after = deflate.answer(
        ready, REGIONS, positions=at, labels=labels, reach=before.reach, start=before.x, **asked
    )  # fmt: skip
    own = deflate.answer(ready, REGIONS, positions=at, labels=labels, **asked)
    assert np.isfinite(after.bound).all()
    keeps(after, densely(lattice, at, labels), mass)
    assert (np.asarray(own.reach) <= np.asarray(before.reach) * 1.1 + 1e-9).all()
    erased = deflate.answer(ready, REGIONS, positions=at[1:], labels=labels[1:], reach=own.reach, **asked)
    assert np.isinf(erased.bound).all()


def test_priors_alone_and_priors_that_do_not_sum_to_one_are_those_of_a_dense_solve(graphs):
    lattice, _, ready = graphs[1]
    p = np.random.default_rng(2).uniform(size=(REGIONS, lattice.active.size)) * np.asarray(lattice.active).ravel()
    at = np.flatnonzero(np.asarray(graph.mass(lattice)) > 0)[:400:57]
    for places in (at, at[:0]):
        told = np.arange(len(places)) % REGIONS
        found = deflate.answer(ready, REGIONS, positions=places, labels=told, priors=jnp.asarray(p), tol=1e-11)
        np.testing.assert_allclose(found.x, densely(lattice, places, told, p), atol=1e-8)


def test_a_bad_start_is_left_out_and_a_good_one_saves_steps(setting):
    lattice, _, seeds, _ = setting
    exact = exactly(lattice, seeds)
    steps = {}
    for name, start in {"none": None, "bad": 50 * (1 - exact), "good": exact + 1e-6}.items():
        steps[name] = int(walk(setting, seeds, 1e-6, start=start).steps)
    assert steps["bad"] == steps["none"] > steps["good"]


def test_a_certificate_that_does_not_hold_is_infinite():
    flow, way, left = np.array([1.0, 0.0, 2.0]), np.ones(3), np.full((2, 3), 1e-3)
    assert np.isinf(bounds.certificate(flow, way, left, np.ones(3))[0]).all()
    assert np.isfinite(bounds.certificate(flow, way, left, np.array([1.0, 0.0, 1.0]))[1]).all()


def problem_of(**changes):
    known = {"kind": "seeds", "gamma": None, "path": None, "close": False, "polish": 0, "error": 0.0, "residual": 0.0}
    return options.Problem(**(known | changes))


@pytest.mark.slow
def test_every_interaction_knows_its_error(setting):
    lattice, basis, seeds, p = setting
    laplacian, rooted = graph.stencil_of(lattice), jnp.sqrt(basis.mass)[None]
    asked = {
        "seeds": (problem_of(residual=1e-3), {"seeds": seeds}),
        "priors": (problem_of(kind="priors", gamma=0.1), {"priors": p, "gamma": 0.1}),
        "asked": (problem_of(kind="priors", gamma=0.1, error=1e-3), {"priors": p, "gamma": 0.1}),
        "both": (problem_of(kind="both", gamma=0.1), {"seeds": seeds, "priors": p, "gamma": 0.1}),
    }
    for name, (problem, told) in asked.items():
        ready = prepared.prepare(lattice, basis, gamma=told.get("gamma", 0.0))
        reply = interact.ask(basis, lattice, laplacian, problem, regions=REGIONS, ready=ready, maximum=300, **told)
        exact = exactly(lattice, told.get("seeds"), told.get("priors"), told.get("gamma", 0.0))
        size = jnp.linalg.norm(rooted * (reply.x if name == "seeds" else p.reshape(REGIONS, -1)))
        assert float(jnp.linalg.norm(rooted * (reply.x - exact))) <= 1.001 * float(reply.bound * size) + 1e-10, name
        assert float(jnp.abs(reply.x - exact).max()) <= 1.001 * float(reply.pointwise) + 1e-10, name
        if name == "asked":
            assert float(reply.bound) <= 1e-3
            assert int(reply.steps) > 0


def test_an_error_that_is_asked_for_is_kept_without_much_more_work():
    image = np.random.default_rng(1).normal(0, 0.2, (1, 20, 21)).astype(np.float32)
    image[0, 5:15, 5:15] += 1
    lattice = graph.build(jnp.asarray(image), beta=50.0)
    basis = eigen.smallest_eigenpairs(lattice, 6, method="dense")
    bright = np.clip(image[0], 0, 1)
    told = {"regions": 2, "priors": np.stack([1 - bright, bright]), "gamma": 0.01}
    ready = prepared.prepare(lattice, basis, gamma=told["gamma"])
    steps = []
    for error in (0.3, 0.03, 0.003):
        problem = options.Problem(
            kind="priors", gamma=0.01, path=None, close=False, polish=0, error=error, residual=0.0
        )
        reply = interact.ask(basis, lattice, graph.stencil_of(lattice), problem, ready=ready, **told)
        assert float(reply.bound) <= error
        steps.append(int(reply.steps))
    assert steps == sorted(steps)
    assert steps[-1] < 6
