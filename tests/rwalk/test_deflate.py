"""Answers that the basis deflates, and their certificates, against dense solves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwalk import deflate, eigen, graph, interact, online, options, solve
from tests.rwalk.test_eigen import noisy_box

SHAPE, REGIONS = (26, 27), 3


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


def exactly(lattice, seeds, priors=None, gamma=0.0):
    x = solve.random_walker(lattice, regions=REGIONS, seeds=seeds, priors=priors, gamma=gamma, tol=1e-13, maximum=2000)
    return x.x.reshape(REGIONS, -1)


def walk(setting, seeds, tol, **options):
    lattice, basis, _, _ = setting
    return deflate.random_walker(basis, lattice, regions=REGIONS, seeds=seeds, tol=tol, maximum=300, **options)


def test_it_converges_to_the_exact_answer_and_in_fewer_steps_than_without_the_basis(setting):
    lattice, _, seeds, p = setting
    answer = walk(setting, seeds, 1e-11)
    np.testing.assert_allclose(answer.x, exactly(lattice, seeds), atol=1e-8)
    plain = solve.random_walker(lattice, regions=REGIONS, seeds=seeds, tol=1e-11, maximum=300)
    assert int(answer.iterations) < int(plain.iterations)
    both = walk(setting, seeds, 1e-11, priors=p, gamma=0.05)
    np.testing.assert_allclose(both.x, exactly(lattice, seeds, p, 0.05), atol=1e-8)


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**31 - 1), st.sampled_from([1e-1, 1e-2, 1e-4]))
def test_no_answer_to_seeds_is_further_off_than_its_certificate(setting, seed, tol):
    with jax.enable_x64(True):
        lattice, basis, _, _ = setting
        rng = np.random.default_rng(seed)
        seeds = np.full(SHAPE, -1)
        seeds.flat[rng.choice(seeds.size, 9, replace=False)] = [0, 1, 2] * 3
        answer = walk(setting, jnp.asarray(seeds), tol)
        error = answer.x - exactly(lattice, jnp.asarray(seeds))
        assert (online.norms(basis, error) <= 1.001 * answer.bound + 1e-10).all()
        assert (jnp.abs(error).max(0) <= 1.001 * answer.pointwise + 1e-10).all()
        assert np.isfinite(answer.bound).all()


@pytest.mark.slow
def test_a_bad_start_is_left_out_and_a_good_one_saves_steps(setting):
    lattice, _, seeds, _ = setting
    exact = exactly(lattice, seeds)
    steps = {}
    for name, start in {"none": None, "bad": 50 * (1 - exact), "good": exact + 1e-6}.items():
        steps[name] = int(walk(setting, seeds, 1e-6, start=start, certify=False).iterations)
    assert steps["bad"] == steps["none"] > steps["good"]


def test_a_certificate_that_does_not_hold_is_infinite(setting):
    lattice, _, seeds, _ = setting
    system = solve.assemble(lattice, regions=REGIONS, seeds=seeds)
    mass = jnp.where(system.free, graph.mass(lattice), 0)
    bound, pointwise = deflate.certificate(system.operator, jnp.zeros(mass.size), system.right, mass)
    assert np.isinf(bound).all()
    assert np.isinf(pointwise).all()


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
        reply = interact.ask(basis, lattice, laplacian, problem, regions=REGIONS, maximum=300, **told)
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
    steps = []
    for error in (0.3, 0.03, 0.003):
        problem = options.Problem(
            kind="priors", gamma=0.01, path=None, close=False, polish=0, error=error, residual=0.0
        )
        reply = interact.ask(basis, lattice, graph.stencil_of(lattice), problem, **told)
        assert float(reply.bound) <= error
        steps.append(int(reply.steps))
    assert steps == sorted(steps)
    assert steps[-1] < 4
