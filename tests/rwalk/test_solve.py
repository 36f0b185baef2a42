import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.linalg import spsolve

from rwalk import graph, solve, stencil


@pytest.fixture
def problem(noise, float64):  # noqa: ARG001
    """A masked image of two channels, four seeds of three labels, priors."""
    shape = (27, 26)
    mask = np.ones(shape, bool)
    mask[8:14, 3:15] = False
    seeds = np.full(shape, -1)
    seeds[0, 0], seeds[20, 24], seeds[2, 21], seeds[23, 1] = 0, 1, 2, 0
    priors = noise.dirichlet(np.ones(3), shape).transpose(2, 0, 1)
    lattice = graph.build(jnp.asarray(noise.random((2, *shape))), beta=8.0, mask=mask, spacing=(1.0, 1.5))
    return lattice, jnp.asarray(seeds), jnp.asarray(priors)


def dense(lattice, seeds, priors, gamma, normalised):
    """Float64 reference: the blocks of the Laplacian, written out and solved directly."""
    matrix = stencil.to_sparse(graph.stencil_of(lattice)).toarray()
    degrees = np.diag(matrix)
    mass = np.diag(degrees if normalised else 1.0 * (degrees > 0))
    active = np.asarray(lattice.active).ravel()
    labels = np.full(active.size, -1) if seeds is None else np.asarray(seeds).ravel()
    free, fixed = active & (labels < 0), active & (labels >= 0)
    p = np.zeros((active.size, 3)) if priors is None else np.asarray(priors).reshape(3, -1).T
    x = np.zeros((active.size, 3))
    x[fixed] = np.eye(3)[labels[fixed]]
    right = gamma * (mass @ p)[free] - matrix[np.ix_(free, fixed)] @ x[fixed]
    x[free] = np.linalg.solve((matrix + gamma * mass)[np.ix_(free, free)], right)
    return x.T.reshape(3, *lattice.shape)


CASES = {"seeds": (1, 0, 0.0), "priors": (0, 1, 0.3), "both": (1, 1, 0.05)}


@pytest.mark.parametrize(
    ("case", "normalised"),
    [("seeds", True), ("priors", True), ("both", True), ("both", False)],
)
def test_equals_the_dense_solution(problem, case, normalised):
    lattice, seeds, priors = problem
    with_seeds, with_priors, gamma = CASES[case]
    given = {"seeds": seeds if with_seeds else None, "priors": priors if with_priors else None, "gamma": gamma}
    solution = solve.random_walker(lattice, regions=3, normalised=normalised, tol=1e-13, **given)
    expected = dense(lattice, given["seeds"], given["priors"], gamma, normalised)
    assert solution.converged
    np.testing.assert_allclose(solution.x, expected, atol=1e-10)
    inside = np.asarray(lattice.active)
    np.testing.assert_allclose(solution.x.sum(0)[inside], 1, atol=1e-10)
    assert solution.x.min() >= -1e-12
    assert solution.x.max() <= 1 + 1e-12
    assert not np.asarray(solution.x)[:, ~inside].any()


def test_labels_may_be_permuted_and_the_image_flipped(problem):
    lattice, seeds, priors = problem
    x = solve.random_walker(lattice, regions=3, seeds=seeds, priors=priors, gamma=0.1, tol=1e-12).x
    order = jnp.array([2, 0, 1])  # new label of each old one
    permuted = solve.random_walker(
        lattice,
        regions=3,
        seeds=jnp.where(seeds >= 0, order[seeds], -1),
        priors=priors[jnp.argsort(order)],
        gamma=0.1,
        tol=1e-12,
    ).x
    np.testing.assert_allclose(permuted[order], x, atol=1e-10)


def test_strong_priors_are_returned_and_a_constant_image_with_one_seed_is_all_its_label(problem):
    lattice, _, priors = problem
    x = solve.random_walker(lattice, regions=3, priors=priors, gamma=1e12, tol=1e-13).x
    np.testing.assert_allclose(x, np.where(lattice.active, priors, 0), atol=1e-10)
    constant = graph.build(jnp.ones((1, 9, 9)), beta=10.0)
    seeds = jnp.full((9, 9), -1).at[4, 4].set(0)
    np.testing.assert_allclose(solve.random_walker(constant, regions=1, seeds=seeds, tol=1e-12).x, 1, atol=1e-10)


def test_a_voxel_without_edges_keeps_its_prior_and_a_piece_without_seeds_gets_none():
    with jax.enable_x64(True):
        mask = np.ones((3, 6), bool)
        mask[:, 2] = mask[1, 3:] = mask[:, 4] = False  # two single voxels right of 3, a 3 x 2 piece on the left
        lattice = graph.build(jnp.ones((1, 3, 6)), beta=1.0, mask=mask)
        priors = jnp.full((2, 3, 6), 0.5).at[:, 0, 3].set(jnp.array([0.9, 0.1]))
        x = solve.random_walker(lattice, regions=2, priors=priors, gamma=0.5).x
        np.testing.assert_allclose(x[:, 0, 3], [0.9, 0.1])
        seeds = jnp.full((3, 6), -1).at[0, 3].set(1)
        x = solve.random_walker(lattice, regions=2, seeds=seeds).x
        np.testing.assert_allclose(x[1, 0, 3], 1)
        assert not np.asarray(x)[:, :, :2].any()


def test_implicit_gradients_equal_those_of_the_dense_solution(problem, noise):
    lattice, seeds, priors = problem
    wanted = jnp.asarray(noise.random((3, *lattice.shape)))

    def by_iteration(weights, p, gamma):
        changed = graph.Lattice(weights, lattice.active, lattice.offsets)
        x = solve.random_walker(changed, regions=3, seeds=seeds, priors=p, gamma=gamma, tol=1e-13).x
        return (x * wanted).sum()

    def directly(weights, p, gamma):
        changed = graph.Lattice(weights, lattice.active, lattice.offsets)
        system = solve.assemble(changed, regions=3, seeds=seeds, priors=p, gamma=gamma)
        matrix = stencil.apply(system.operator, jnp.eye(system.operator.size))
        x = jnp.linalg.solve(matrix, system.right.T).T + system.known
        return (x.reshape(wanted.shape) * wanted).sum()

    arguments = (lattice.weights, priors, 0.2)
    found = jax.grad(by_iteration, argnums=(0, 1, 2))(*arguments)
    expected = jax.grad(directly, argnums=(0, 1, 2))(*arguments)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.usefixtures("float64")
def test_gradient_by_beta_equals_a_difference(noise):
    image, seeds = jnp.asarray(noise.random((1, 6, 6))), jnp.full((6, 6), -1).at[0, 0].set(0).at[5, 5].set(1)

    def corner(beta):
        return solve.random_walker(graph.build(image, beta=beta), regions=2, seeds=seeds, tol=1e-13).x[0, 0, 5]

    difference = (corner(5.001) - corner(4.999)) / 0.002
    np.testing.assert_allclose(jax.grad(corner)(5.0), difference, rtol=1e-5)


def test_a_good_first_guess_saves_steps(problem):
    lattice, seeds, _ = problem
    cold = solve.random_walker(lattice, regions=3, seeds=seeds, tol=1e-8)
    warm = solve.random_walker(lattice, regions=3, seeds=seeds, tol=1e-8, start=cold.x)
    assert int(warm.iterations) == 0 < int(cold.iterations)


def test_neither_other_seeds_nor_a_first_guess_compile_again(problem):
    lattice, seeds, _ = problem
    cold = solve.random_walker(lattice, regions=3, seeds=seeds)
    compiled = solve._solve._cache_size()
    solve.random_walker(lattice, regions=3, seeds=jnp.roll(seeds, 1), start=cold.x, tol=1e-3)
    assert solve._solve._cache_size() == compiled


def test_misuse_is_refused_with_the_remedy(problem):
    lattice, seeds, priors = problem
    with pytest.raises(ValueError, match="neither seeds nor priors"):
        solve.random_walker(lattice, regions=3)
    for given in (seeds, np.asarray(seeds)):
        with pytest.raises(ValueError, match="seeds hold label 2, regions=2 allows 0 to 1; give more regions"):
            solve.random_walker(lattice, regions=2, seeds=given)
    with pytest.raises(ValueError, match="seeds hold label 2"):  # closed over by what is compiled
        jax.jit(lambda held: solve.random_walker(held, regions=2, seeds=seeds).x)(lattice)
    with pytest.raises(ValueError, match="priors must have the lattice's shape"):
        solve.random_walker(lattice, regions=2, priors=priors, gamma=1.0)


def scikit_image(image, seeds, **options):
    from skimage.segmentation import random_walker

    return random_walker(image, seeds, mode="bf", return_full_prob=True, **options)


def noisy_square(noise, shape):
    image = np.zeros(shape)
    image[tuple(slice(size // 4, -size // 4) for size in shape)] = 1
    return image + 0.2 * noise.normal(size=shape)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("shape", "spacing", "channels"),
    [((24, 20), (1.0, 2.0), 1), ((24, 20), None, 3), ((9, 10, 8), (1.0, 1.0, 2.0), 1)],
)
def test_equals_scikit_image_with_its_weights(noise, shape, spacing, channels):
    image = np.stack([noisy_square(noise, shape) for _ in range(channels)])
    seeds = np.zeros(shape, int)
    seeds[tuple(size // 2 for size in shape)], seeds[(1,) * len(shape)], seeds[(-2,) * len(shape)] = 1, 2, 3
    options = {"channel_axis": 0} if channels > 1 else {}
    expected = scikit_image(image if channels > 1 else image[0], seeds, beta=90, spacing=spacing, **options)
    lattice = graph.build(jnp.asarray(image), beta=90.0, convention="skimage", spacing=spacing)
    found = solve.random_walker(lattice, regions=3, seeds=jnp.asarray(seeds - 1), tol=1e-10).x
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(found.argmax(0), expected.argmax(0))


@pytest.mark.usefixtures("float64")
def test_equals_scikit_image_where_seeds_mask_a_part_of_the_image(noise):
    image = noisy_square(noise, (20, 20))
    seeds = np.zeros((20, 20), int)
    seeds[10, 10], seeds[2, 2], seeds[:, 17:] = 1, 2, -1  # -1 leaves voxels out there
    expected = scikit_image(image, seeds, beta=50)
    lattice = graph.build(jnp.asarray(image)[None], beta=50.0, convention="skimage", mask=seeds >= 0)
    found = solve.random_walker(lattice, regions=2, seeds=jnp.asarray(np.maximum(seeds, 0) - 1), tol=1e-10).x
    np.testing.assert_allclose(found[:, :, :17], expected[:, :, :17], atol=1e-4)


@pytest.mark.usefixtures("optimised")
def test_skimage_2360_probabilities_stay_between_zero_and_one_in_float32(noise):
    image = noisy_square(noise, (40, 40)).astype(np.float32)
    seeds = jnp.full((40, 40), -1).at[20, 20].set(0).at[1, 1].set(1)
    lattice = graph.build(jnp.asarray(image)[None], beta=130.0, convention="skimage")
    solution = solve.random_walker(lattice, regions=2, seeds=seeds, tol=1e-6)
    assert solution.x.min() >= -1e-6
    assert solution.x.max() <= 1 + 1e-6
    np.testing.assert_allclose(solution.x.sum(0), 1, atol=2e-4)


@pytest.mark.usefixtures("optimised")
def test_pieces_that_hang_on_by_the_least_weight_are_right_in_float32():
    """Pieces of 64 voxels, edges of one within and 1e-10 around: row sums are a thousandth of float32's last digit."""
    rng = np.random.default_rng(0)
    image = rng.random((5, 5)).repeat(8, 0).repeat(8, 1) + 0.02 * rng.normal(size=(40, 40))
    seeds = np.full((40, 40), -1)
    seeds[1, 1], seeds[37, 37], seeds[20, 20] = 0, 1, 2
    lattice = graph.build(jnp.asarray(image, jnp.float32)[None], beta=5000.0, convention="skimage")
    found = solve.random_walker(lattice, regions=3, seeds=jnp.asarray(seeds), tol=1e-5, aggregates="strong")
    with jax.enable_x64(True):
        double = graph.Lattice(jnp.asarray(np.asarray(lattice.weights), jnp.float64), lattice.active, lattice.offsets)
        matrix = stencil.to_sparse(graph.stencil_of(double))
    free = np.flatnonzero(seeds.ravel() < 0)
    x = (np.arange(3)[:, None] == seeds.ravel()).astype(float)
    x[:, free] = spsolve(matrix[free][:, free].tocsc(), -(matrix @ x.T)[free]).T
    assert found.converged
    assert int(found.iterations) < 15
    np.testing.assert_allclose(found.x.reshape(3, -1), x, atol=3e-5)
    np.testing.assert_allclose(found.x.sum(0), 1, atol=3e-5)
    assert found.x.min() >= -1e-6
    assert found.x.max() <= 1 + 1e-6


def test_skimage_4784_single_precision_with_a_mask_agrees_with_double(noise):
    image, mask = noisy_square(noise, (24, 24)), np.ones((24, 24), bool)
    mask[:, 20:] = False
    found = []
    for precise in (False, True):
        with jax.enable_x64(precise):
            seeds = jnp.full((24, 24), -1).at[12, 12].set(0).at[1, 1].set(1)
            values = jnp.asarray(image[None], jnp.float64 if precise else jnp.float32)
            lattice = graph.build(values, beta=20.0, convention="skimage", mask=mask)
            found.append(np.asarray(solve.random_walker(lattice, regions=2, seeds=seeds, tol=1e-6).x))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


@pytest.mark.usefixtures("float64")
def test_strong_aggregates_solve_extreme_contrast_in_few_steps_and_inside_a_derivative():
    """Lines of one voxel, edges of one and of a millionth: cubes of voxels take several times the steps."""
    image = np.random.default_rng(0).normal(0, 0.02, (48, 48))
    image[1::4, 2:-2] += 1
    lattice = graph.build(jnp.asarray(image)[None], beta=100.0, eps=1e-6)
    seeds = np.full(image.shape, -1, np.int32)
    seeds[0, 0], seeds[-1, -1] = 0, 1
    given = {"regions": 2, "seeds": jnp.asarray(seeds)}

    def directly(weights):
        system = solve.assemble(graph.Lattice(weights, lattice.active, lattice.offsets), **given)
        return spsolve(stencil.to_sparse(system.operator).tocsc(), np.asarray(system.right).T).T + system.known

    strong = solve.random_walker(lattice, aggregates="strong", tol=1e-8, **given)
    np.testing.assert_allclose(strong.x.reshape(2, -1), directly(lattice.weights), atol=1e-6)
    assert int(strong.iterations) < 25 < int(solve.random_walker(lattice, tol=1e-8, **given).iterations) / 3
    with pytest.raises(ValueError, match="there are cubes and strong"):
        solve.random_walker(lattice, aggregates="weak", **given)
    hierarchy = solve.strong_aggregates(lattice, **given)

    def middle(weights, aggregates):
        held = graph.Lattice(weights, lattice.active, lattice.offsets)
        return solve.random_walker(held, aggregates=aggregates, tol=1e-10, **given).x[1, 20:30].sum()

    slope = jax.jit(jax.grad(middle))(lattice.weights, hierarchy)
    step = 1e-4 * np.random.default_rng(1).normal(size=slope.shape) * np.asarray(lattice.weights)
    ahead, behind = (directly(lattice.weights + s * step)[1].reshape(48, 48)[20:30].sum() for s in (1, -1))
    np.testing.assert_allclose(float((slope * step).sum()), (ahead - behind) / 2, rtol=1e-4)
    with pytest.raises(TypeError, match="call strong_aggregates before jit or grad"):
        jax.grad(middle)(lattice.weights, "strong")
