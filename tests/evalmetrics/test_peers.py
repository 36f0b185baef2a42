"""Equality with MONAI and torchmetrics by values they computed, kept in `peers.json` with their versions.

`python scripts/bench.py evalmetrics --golden` computes them anew in the peers' own environment.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evalmetrics import crisp, scores, simplex


@pytest.fixture(scope="module")
def kept():
    return json.loads(Path(__file__).with_name("peers.json").read_text())


@pytest.fixture
def soft(kept):
    return [np.asarray(kept["inputs"][name], np.float32) for name in "pq"]


@pytest.fixture
def labels(kept):
    return [np.asarray(kept["inputs"][name], np.int32) for name in ("reference", "prediction")]


@pytest.mark.parametrize("peer", ["monai_dice", "torchmetrics_dice"])
def test_crisp_dice_equals_the_peer(kept, labels, peer):
    regions = (kept["inputs"]["regions"],) * 2
    np.testing.assert_allclose(crisp.dice(crisp.contingency(*labels, regions)), kept["values"][peer], atol=2e-7)


@pytest.mark.parametrize("peer", ["monai_dice", "torchmetrics_dice"])
def test_the_score_of_label_maps_equals_the_peer(kept, labels, peer):
    np.testing.assert_allclose(scores.score(*labels, labels="ordered").region, kept["values"][peer], atol=2e-7)


def test_the_loss_of_monai_for_soft_labels_is_one_minus_abs(kept, soft):
    region = scores.score(*soft, labels="ordered").region
    np.testing.assert_allclose(1 - region, kept["values"]["monai_soft_label_loss"], atol=1e-6)


def test_a_soft_map_agrees_with_itself_where_products_of_probabilities_do_not(kept, soft):
    p, _ = soft
    np.testing.assert_allclose(scores.score(p, p, labels="ordered").region, 1, atol=1e-6)
    np.testing.assert_allclose(kept["values"]["monai_soft_label_loss_self"], 0, atol=1e-6)
    # What the field answers instead: MONAI's metric takes every positive probability for a member (about 0.40 for
    # four regions), the product form of soft Dice loses what is uncertain (0.71; the kept map was sharpened to it).
    assert kept["values"]["monai_metric_of_soft_self"][0] == pytest.approx(0.40, abs=0.005)
    assert kept["values"]["monai_product_dice_of_soft_self"] == pytest.approx(0.71, abs=0.005)


def test_what_the_peers_answer_for_a_soft_map_with_itself_follows_from_their_formulas(kept, soft):
    p = soft[0].astype(np.float64).reshape(4, -1)
    members = (2 * p.sum(1) / (p.sum(1) + p.shape[1])).mean()
    products = ((p * p).sum(1) / p.sum(1)).mean()
    assert kept["values"]["monai_metric_of_soft_self"][0] == pytest.approx(members, abs=1e-6)
    assert kept["values"]["monai_product_dice_of_soft_self"] == pytest.approx(products, abs=1e-6)


def test_the_kept_values_name_the_versions_that_gave_them(kept):
    pins = (Path(__file__).parents[2] / "scripts" / "peers" / "torch.txt").read_text()
    for name, version in kept["versions"].items():
        assert f"{name}=={version.split('+')[0]}\n" in pins


def test_the_distance_equals_that_of_the_log_ratios_of_scikit_bio():
    skbio = pytest.importorskip("skbio.stats.composition", reason="peer scikit-bio is not installed")
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6), (2, 500))
    with jax.enable_x64(True):
        ours = simplex.distance(jnp.asarray(p.T), jnp.asarray(q.T))
    np.testing.assert_allclose(ours, np.linalg.norm(skbio.clr(p) - skbio.clr(q), axis=1), atol=1e-8)


def test_the_distance_map_equals_that_of_composition_stats():
    stats = pytest.importorskip("composition_stats", reason="peer composition_stats is not installed")
    rng = np.random.default_rng(1)
    p, q = rng.dirichlet(np.full(5, 0.3), (2, 400)).astype(np.float32)
    lifted = [stats.clr(stats.closure(np.maximum(x.astype(np.float64), 0.01))) for x in (p, q)]
    ours = simplex.distance_map(jnp.asarray(p.T), jnp.asarray(q.T), eps=0.01)
    np.testing.assert_allclose(ours, np.linalg.norm(lifted[0] - lifted[1], axis=1), atol=1e-5)
