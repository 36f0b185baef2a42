import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwalk import bounds, eigen, graph, online, solve
from tests.rwalk.test_eigen import noisy_box

SHAPE = (12, 13)


@pytest.fixture(scope="module")
def setting():
    """A graph in float64 with all of its pairs, its Laplacian, and priors."""
    with jax.enable_x64(True):
        lattice = graph.build(jnp.asarray(noisy_box(SHAPE))[None], beta=20.0)
        basis = eigen.smallest_eigenpairs(lattice, lattice.active.size, method="dense")
        p = np.random.default_rng(1).dirichlet(np.ones(3), lattice.active.size).T
        yield lattice, basis, graph.stencil_of(lattice), jnp.asarray(p)


def truncated(basis, k):
    return basis._replace(values=basis.values[:k], vectors=basis.vectors[:, :k])


def exact_priors(lattice, p, gamma):
    return solve.random_walker(
        lattice, regions=len(p), priors=p.reshape(-1, *lattice.shape), gamma=gamma, tol=1e-13
    ).x.reshape(p.shape)


def exact_seeds(lattice, positions, labels, regions):
    seeds = np.full(lattice.active.size, -1)
    seeds[np.asarray(positions)] = labels
    seeds = jnp.asarray(seeds.reshape(lattice.shape))
    return solve.random_walker(lattice, regions=regions, seeds=seeds, tol=1e-13).x.reshape(regions, -1)


POSITIONS, LABELS = np.array([0, 80, 155, 40, 100]), np.array([0, 1, 0, 2, 1])


def test_all_pairs_give_the_exact_answer_to_ten_digits(setting):
    lattice, basis, laplacian, p = setting
    answer = online.priors(basis, laplacian, p, 0.05, polish=0)
    np.testing.assert_allclose(answer.x, exact_priors(lattice, p, 0.05), atol=1e-10)
    x = online.seeds(truncated(basis, 155), POSITIONS, LABELS, 3)
    last = online.seeds(basis, POSITIONS, LABELS, 3)  # nothing is left for the mean
    expected = exact_seeds(lattice, POSITIONS, LABELS, 3)
    np.testing.assert_allclose(last, expected, atol=1e-10)
    np.testing.assert_allclose(x, expected, atol=1e-10)  # one mode left, whose value is the mean itself


def test_seeds_and_priors_together_are_exact_with_all_pairs_and_close_with_some(setting):
    lattice, basis, laplacian, p = setting
    seeds = np.full(156, -1)
    seeds[POSITIONS] = LABELS
    given = {"seeds": jnp.asarray(seeds.reshape(SHAPE)), "priors": p.reshape(3, *SHAPE)}
    exact = solve.random_walker(lattice, regions=3, gamma=0.05, tol=1e-13, **given).x.reshape(3, -1)
    x = online.both(basis, laplacian, p, 0.05, POSITIONS, LABELS, polish=0)
    np.testing.assert_allclose(x, exact, atol=1e-10)
    some = online.both(truncated(basis, 60), laplacian, p, 0.05, POSITIONS, LABELS)
    assert float(jnp.linalg.norm(some - exact) / jnp.linalg.norm(exact)) < 0.05


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31 - 1), st.sampled_from([3, 40]), st.floats(-3, 1), st.sampled_from([0, 3]), st.booleans())
def test_no_answer_is_further_off_than_its_bounds(setting, seed, k, exponent, polish, complement):
    with jax.enable_x64(True):
        _, basis, laplacian, _ = setting
        rng = np.random.default_rng(seed)
        p, gamma = jnp.asarray(rng.normal(size=(3, SHAPE[0] * SHAPE[1]))), 10.0**exponent
        full = online.priors(basis, laplacian, p, gamma, polish=0).x
        answer = online.priors(truncated(basis, k), laplacian, p, gamma, polish=polish, complement=complement)
        error = answer.x - full
        slack = 1 + 1e-9
        assert (online.norms(basis, error) <= slack * answer.bound + 1e-9).all()
        assert (jnp.abs(error).max(1) <= slack * answer.pointwise + 1e-9).all()
        known = bounds.tails(truncated(basis, k), p, online.weigh(truncated(basis, k), p), gamma)
        if polish == 0:
            assert (online.norms(basis, error) <= slack * known[:, -1] + 1e-9).all()


@pytest.mark.parametrize("tol", [0.5, 0.2, 0.05])
def test_the_number_of_pairs_is_the_smallest_that_keeps_the_requested_error(setting, tol):
    lattice, basis, laplacian, p = setting
    answer = online.priors(basis, laplacian, p, 0.02, tol=tol, polish=0, complement=False)
    error = online.norms(basis, answer.x - exact_priors(lattice, p, 0.02))
    assert (error <= tol * online.norms(basis, p)).all()
    known = bounds.tails(basis, p, online.weigh(basis, p), 0.02) / online.norms(basis, p)[:, None]
    assert (known[:, int(answer.used) - 1] <= tol).all()
    assert answer.used == 1 or (known[:, int(answer.used) - 2] > tol).any()


def test_complement_and_polish_lower_the_error_and_labels_still_sum_to_one(setting):
    lattice, basis, laplacian, p = setting
    exact = exact_priors(lattice, p, 0.05)
    ways = [{"complement": False, "polish": 0}, {"polish": 0}, {"polish": 5}, {"polish": 10}]
    answers = [online.priors(truncated(basis, 30), laplacian, p, 0.05, **way) for way in ways]
    errors = [float(online.norms(basis, answer.x - exact).max()) for answer in answers]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < 0.1 * errors[1]
    for answer in answers[1:]:
        np.testing.assert_allclose(answer.x.sum(0), 1, atol=1e-12)


def test_seeds_keep_their_labels_and_more_pairs_come_closer(setting):
    lattice, basis, _, _ = setting
    exact = exact_seeds(lattice, POSITIONS, LABELS, 3)
    errors = []
    for k in (5, 20, 60, 120):
        x = online.seeds(truncated(basis, k), POSITIONS, LABELS, 3)
        np.testing.assert_array_equal(x[:, POSITIONS].argmax(0), LABELS)
        np.testing.assert_allclose(x.sum(0), 1, atol=1e-10)
        errors.append(float(jnp.linalg.norm(x - exact)))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.35 * float(jnp.linalg.norm(exact))


def test_more_seeds_than_pairs_do_not_diverge(setting):
    lattice, basis, _, _ = setting
    positions = np.arange(0, 156, 5)
    labels = positions % 3
    x = online.seeds(truncated(basis, 10), positions, labels, 3)
    exact = exact_seeds(lattice, positions, labels, 3)
    assert float(jnp.linalg.norm(x - exact) / jnp.linalg.norm(exact)) < 0.5
    assert jnp.abs(x).max() < 2


def test_components_answer_for_themselves():
    with jax.enable_x64(True):
        mask = np.ones((6, 9), bool)
        mask[:, 4] = False
        lattice = graph.build(jnp.asarray(noisy_box((6, 9)))[None], beta=5.0, mask=mask)
        basis = eigen.smallest_eigenpairs(lattice, 47, method="dense")
        positions, labels = np.array([0, 27, 8]), np.array([0, 1, 2])
        x = online.seeds(basis, positions, labels, 3).reshape(3, 6, 9)
        np.testing.assert_allclose(x[2, :, 5:], 1, atol=1e-8)
        np.testing.assert_allclose(x, exact_seeds(lattice, positions, labels, 3).reshape(3, 6, 9), atol=1e-8)


def test_labels_may_be_permuted(setting):
    _, basis, _, _ = setting
    x = online.seeds(truncated(basis, 20), POSITIONS, LABELS, 3)
    order = np.array([2, 0, 1])
    np.testing.assert_allclose(online.seeds(truncated(basis, 20), POSITIONS, order[LABELS], 3)[order], x, atol=1e-12)


def test_single_precision_agrees_with_double(setting):
    _, basis, laplacian, p = setting
    single = jax.tree.map(lambda a: a.astype(jnp.float32) if a.dtype == jnp.float64 else a, (basis, laplacian, p))
    double = online.priors(truncated(basis, 40), laplacian, p, 0.05).x
    rough = online.priors(truncated(single[0], 40), single[1], single[2], jnp.float32(0.05)).x
    np.testing.assert_allclose(rough, double, atol=2e-5)


def test_voxels_that_could_flip_hold_all_that_do(setting):
    lattice, basis, laplacian, p = setting
    exact = exact_priors(lattice, p, 0.05)
    answer = online.priors(truncated(basis, 40), laplacian, p, 0.05, polish=8)
    flips = np.asarray(online.could_flip(answer.x, answer.pointwise.max()))
    changed = np.asarray(answer.x.argmax(0) != exact.argmax(0))
    assert flips[changed].all()
    assert flips.mean() < 0.9


def test_margin_entropy_and_simplex_by_hand():
    x = jnp.array([[0.5, 1.0, -0.1], [0.3, 0.0, 0.6], [0.2, 0.0, 0.6]])
    np.testing.assert_allclose(online.margin(x), [0.2, 1.0, 0.0], atol=1e-7)
    np.testing.assert_allclose(online.to_simplex(x)[:, 2], [0, 0.5, 0.5])
    np.testing.assert_allclose(online.entropy(jnp.array([[0.5, 1.0], [0.5, 0.0]])), [1, 0], atol=1e-7)
    np.testing.assert_array_equal(online.could_flip(x, 0.1), [True, False, True])


def test_too_many_seeds_are_refused_with_the_remedy(setting):
    _, basis, _, _ = setting
    with pytest.raises(ValueError, match=r"rwalk\.random_walker"):
        online.seeds(basis, np.zeros(5000, int), np.zeros(5000, int), 2)
