"""Runs with teachers that are more than a wider student, with values to predict, and with labels for history."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kdrec import io, teach
from tests.kdrec.test_experiment import NAMES, build, finished, science
from tests.kdrec.test_train import STEPS, batches, start
from tests.kdrec.worlds import knobs, plan, world

WATCH = [*NAMES, "data.watch=true", "train.limit=8", "train.seeds=1"]


@pytest.fixture(scope="module")
def events():
    return world()


def labels(shape, pair, found):
    teacher = jax.tree.map(jnp.copy, pair)
    step, last = jnp.int32(0), jnp.int32(STEPS)
    return teach.publish(teach.alone(shape), knobs(), teacher, found, step, last)


def test_an_ensemble_says_the_mean_of_what_its_members_say(events):
    shape, found = plan(events), batches(events)
    alone, _ = start(shape, 2)
    _, said, sums = labels(shape, alone, found)
    _, together, mean = labels(shape._replace(members=2), alone, found)
    assert together.logits.shape == (STEPS, 1, *said.logits.shape[2:])
    np.testing.assert_allclose(together.logits[:, 0], said.logits.mean(1), rtol=1e-5, atol=1e-6)
    assert float(mean.loss[0, 0]) < float(sums.loss[:, 0].mean())  # log loss is convex


def test_a_teacher_of_two_passes_has_taken_two_steps_on_each_batch(events):
    shape, found = plan(events), batches(events)
    twice = jax.tree.map(lambda column: jnp.repeat(column, 2, axis=0), found)
    after, _, _ = labels(shape._replace(passes=2), start(shape)[0], found)
    other = teach.publish(
        teach.alone(shape), knobs(), start(shape)[0], twice, jnp.int32(0), jnp.int32(2 * STEPS)
    )[0]  # fmt: skip
    for a, b in zip(jax.tree.leaves(after.learner.params), jax.tree.leaves(other.learner.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_run_with_an_ensemble_and_a_column_of_its_own_ends_with_a_student_that_lacks_the_column(tmp_path):
    short = [*NAMES, "train.limit=8", "train.seeds=1", "model.without=[segment]"]
    experiment, _ = build(*short, "teacher.members=2", "teacher.layers=[16,8,8]", "labels=lockstep")
    assert experiment.plan.columns == (0, 1, 3, 4, 5)
    assert (experiment.plan.student.features, experiment.plan.teacher.features) == (5, 6)
    assert experiment.plan.teacher.layers == (16, 8, 8)
    rows = finished(experiment)
    assert rows[-1]["change/1"] != 0
    assert rows[-1]["cost/ratio"] > 1
    experiment.report(rows, tmp_path)
    from kdrec import export

    call = export.load((tmp_path / "student.stablehlo").read_bytes())
    assert call(np.zeros((3, 5), np.int32), np.zeros((3, 0), np.float32)).shape == (3, 2)


@pytest.fixture(scope="module")
def watched():
    return {name: finished(build(*WATCH, f"distill={name}")[0])[-1] for name in ("auxiliary", "direct")}


def test_values_are_learned_beside_probabilities(watched):
    for name, row in watched.items():
        assert row["xauc/3"] > 0.52, name
        assert row["mae/3"] > 0
        assert np.isfinite([row["ne/3"], row["calibration/3"], row["leak/3"], row["huber/3"], row["change/3"]]).all()
        assert not {"auc/3", "log_loss/3", "identity/3"} & set(row)
        assert row["log_loss"] == pytest.approx((row["log_loss/1"] + row["log_loss/2"]) / 2)
        total = row["log_loss/1"] + row["log_loss/2"] + row["huber/3"]
        assert row["ltv_proxy"] == pytest.approx(total)
    assert watched["auxiliary"]["change/3"] != watched["direct"]["change/3"]


def test_labels_of_values_are_the_same_through_a_store(watched, tmp_path):
    store = ["labels=delta", f"labels.path={tmp_path / 'store'}"]
    row = finished(build(*WATCH, *store)[0])[-1]
    assert science([{**row, "window": {}}]) == science([{**watched["auxiliary"], "window": {}}])
    assert row["cost/labels/bytes_read"] > 0
    assert row["cost/seconds/labels_written"] > 0


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["distill=listwise"],
            "distill=listwise: task 'watch' has values and no probabilities; give distill.tasks, of",
        ),
        (["distill=direct", "distill.weight=1.5"], "distill.weight: a mixed term takes at most 1, got 1.5; or give"),
        (["model.without=[colour]"], "model.without: no column 'colour'; the stream has user, item"),
        (["train.value={sale: 1}"], "train.value: no task 'sale'; the stream has click, like, watch"),
        (
            ["distill=hidden", "labels=lockstep", "teacher.members=2"],
            "teacher.members: the trunks of several teachers have no mean; with distill=hidden give 1",
        ),
        (["labels.source=backfill"], "labels.source: labels in memory end with their run; give labels=delta"),
    ],
)
def test_what_does_not_go_together_is_told(overrides, line):
    with pytest.raises(io.InputError) as caught:
        build(*WATCH, *overrides)[0].init(jax.random.key(0))
    assert str(caught.value).startswith(line)


SHORT = [*NAMES, "train.limit=12", "train.seeds=1", "teacher.shift=0.3"]


def test_history_gets_exactly_the_labels_that_it_lacks(tmp_path):
    """A teacher that spoke late and with gaps is asked for the rest; late students then learn as from a whole one."""

    def run(name, *overrides):
        return finished(build(*SHORT, "labels=delta", f"labels.path={tmp_path / name}", *overrides)[0])[-1]

    whole = run("whole")
    gaps = run("gaps", "teacher.warmup=0.45", "labels.fault=missing")
    assert gaps["labels/coverage"] < 1
    with pytest.raises(io.InputError, match=r"fill its gaps with labels\.source=backfill"):
        run("gaps", "train.rate=0.01")
    filled = run("gaps", "labels.source=backfill")
    assert (filled["labels/lost"], filled["labels/doubled"], filled["labels/coverage"]) == (0, 0, 1)
    late = ["labels.source=stored", "train.start=0.1"]
    first, second = (run(name, *late) for name in ("whole", "gaps"))
    assert first["labels/seen"] == second["labels/seen"] == 1
    for name in ("log_loss", "change/1", "change/2", "teacher/calibration/1"):
        assert first[name] == second[name], name
    assert whole["log_loss"] == filled["log_loss"]
    with pytest.raises(io.InputError, match="nothing to fill in of teacher 'tutor-0'; the store has teacher-0"):
        run("gaps", "labels.source=backfill", "labels.teacher=tutor")
