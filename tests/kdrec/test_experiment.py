"""A whole pass through the experiment and the shell: resumed runs, rows, pages."""

import dataclasses

import jax
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from kdrec import io
from kdrec.experiment import Ranking
from quartet import settings
from quartet.drive import drive
from quartet.launch import CONFIGS
from quartet.results import RunFolder, plain, read_rows

WORLD = ["data.events=12000", "data.users=60", "labels=memory"]
SMALL = ["train.interval=10", "train.batch=64", "train.seeds=2", "train.bins=64"]


def build(*overrides, small=True, keep=False):
    """An experiment and the settings of the shell from the config tree, small unless told otherwise."""
    with initialize_config_dir(str(CONFIGS / "kdrec"), version_base="1.3"):
        config = compose("config", overrides=[*(WORLD if small else []), *([] if keep else SMALL), *overrides])
    names = [field.name for field in dataclasses.fields(Ranking)]
    experiment = Ranking(**{name: instantiate(config[name], _convert_="all") for name in names})
    shell = settings.Settings(**{name: instantiate(config[name], _convert_="all") for name in settings.SHELL_KEYS})
    return experiment, shell


def leaves(state):
    plain = jax.tree.map(
        lambda x: jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x, state
    )
    return [np.array(leaf) for leaf in jax.tree.leaves(plain)]


NAMES = ["run.folder=unused", "run.limit=null"]


def finished(experiment):
    """Rows of a whole run."""
    return [row for _, row in experiment.run(experiment.init(jax.random.key(0)))]


@pytest.fixture(scope="module")
def biased():
    """A teacher whose logits are too high, and students that learn from it at once, with no store between."""
    experiment, _ = build(*NAMES, "labels=lockstep", "teacher.shift=0.8")
    return finished(experiment)


def science(rows):
    """Rows without what the store says of itself."""

    def of(row):
        kept = {k: v for k, v in row.items() if not k.startswith(("labels/", "cost/", "window"))}
        return kept | {"window": {k: v for k, v in row["window"].items() if k != "labels"}}

    return plain([of(row) for row in rows])


@pytest.mark.parametrize("kind", ["memory", "delta"])
def test_a_run_through_a_store_equals_lock_step_bit_for_bit(kind, biased, tmp_path):
    path = [f"labels.path={tmp_path / 'store'}"] if kind == "delta" else []
    experiment, _ = build(*NAMES, f"labels={kind}", *path, "teacher.shift=0.8")
    rows = finished(experiment)
    assert science(rows) == science(biased)
    last = rows[-1]
    assert (last["labels/lost"], last["labels/doubled"], last["labels/bad"]) == (0, 0, 0)
    assert last["labels/coverage"] == 1
    assert last["labels/seen"] == 1
    assert 0 < rows[3]["window"]["labels"]["lag"] < 12000 / 20000 * 86400


def test_students_of_stored_labels_equal_those_beside_the_teacher(biased, tmp_path):
    """The teacher of one run teaches the students of another, which pins what it reads."""
    store = ["labels=delta", f"labels.path={tmp_path / 'store'}"]
    finished(build(*NAMES, *store, "teacher.shift=0.8")[0])
    experiment, _ = build(*NAMES, *store, "labels.source=stored")
    state = experiment.init(jax.random.key(0))
    assert state.teacher is None
    states, rows = zip(*experiment.run(state), strict=True)
    assert states[0].offset[1] == states[-1].offset[1] > 0
    assert rows[-1]["log_loss"] == biased[-1]["log_loss"]
    assert rows[-1]["change/1"] == biased[-1]["change/1"]
    assert rows[-1]["teacher/calibration/1"] == pytest.approx(biased[-1]["teacher/calibration/1"], rel=1e-5)
    with pytest.raises(io.InputError, match=r"no versions of teacher 'tutor-0'; the store has teacher-0, teacher-1"):
        finished(build(*NAMES, *store, "labels.source=stored", "labels.teacher=tutor")[0])
    with pytest.raises(io.InputError, match=r"no good version from 1000 on; it has 0 \(good\), 10 \(good\)"):
        finished(build(*NAMES, *store, "labels.source=stored", "labels.first=1000")[0])
    with pytest.raises(io.InputError, match=r"another run has published teacher 'teacher-0' in this store"):
        finished(build(*NAMES, *store, "teacher.shift=0.7")[0])


class Stopped(Exception):
    """Ends a run in its middle."""


class Watched(Ranking):
    """Keeps the last state it went through, and may stop before an interval."""

    stop_before: int | None = None
    last: list

    def run(self, state, *, place=lambda x, axis=0: x):  # noqa: ARG005
        for state, row in super().run(state, place=place):  # noqa: B020
            if self.stop_before == int(state.step):
                raise Stopped
            object.__setattr__(self, "last", leaves(state._replace(spent=np.zeros(5))))  # but for seconds
            yield state, row


def watched(experiment, **values):
    copy = Watched(**{field.name: getattr(experiment, field.name) for field in dataclasses.fields(Ranking)})
    for name, value in values.items():
        object.__setattr__(copy, name, value)
    return copy


def test_a_resumed_run_equals_a_whole_one_bit_for_bit(tmp_path):
    """Stopped after labels were published that no checkpoint knows of: they are told again, and recognised."""

    def of(name):
        store = ["labels=delta", f"labels.path={tmp_path / name}"]
        return build(*NAMES, *store, "train.limit=8", "train.seeds=2", "checkpoint.every=1", "checkpoint.seconds=null")

    experiment, shell = of("one")
    whole = watched(experiment)
    rows = finished(whole)
    assert len(rows) == experiment.length() == 8
    folder = RunFolder(tmp_path / "run")
    folder.start({"config": {}, "inputs": {}}, anew=False)
    with pytest.raises(Stopped):
        drive(watched(of("two")[0], stop_before=5), shell, folder, {"config": {}, "inputs": {}})
    resumed = watched(of("two")[0])
    drive(resumed, shell, folder, {"config": {}, "inputs": {}})
    told = [{"step": i + 1, **plain(row)} for i, row in enumerate(rows)]
    assert read_rows(folder.metrics)[:-1] == told[:-1]
    last = {k: v for k, v in read_rows(folder.metrics)[-1].items() if not k.startswith("cost/")}
    assert last == {k: v for k, v in told[-1].items() if not k.startswith("cost/")}
    for a, b in zip(whole.last, resumed.last, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_page_and_the_pictures_are_written(biased, tmp_path):
    from PIL import Image

    experiment, _ = build(*NAMES)
    rows = [dict(row, window=row["window"] | {"labels": {"coverage": 1.0, "lag": None}}) for row in biased]
    experiment.report(rows, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "auxiliary distillation" in text
    assert f"{biased[-1]['change/1']:.5g}" in text
    for name in ("ne", "calibration", "segments", "labels"):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert picture.width > 600
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_a_biased_teacher_leaks_into_direct_and_not_into_auxiliary(biased):
    experiment, _ = build(
        *NAMES, "distill=direct", "teacher.shift=0.8", "distill.weight=[0.5,0.25]", "labels.gate.active=false"
    )
    rows = finished(experiment)
    last = rows[-1]
    assert last["identity/1"] == pytest.approx(1 + 0.5 * (last["teacher/calibration/1"] - 1))
    assert last["weight=0.25/identity/1"] == pytest.approx(1 + 0.25 * (last["teacher/calibration/1"] - 1))
    assert "log_loss" not in rows[experiment.scope.scored - 1]
    assert last["cost/ratio"] > 1
    assert last["events"] == 12000
    assert last["leak/1"] > 0.1
    assert last["leak/1"] == pytest.approx(last["identity/1"] - 1, rel=0.25)
    assert last["leak/1"] > last["weight=0.25/leak/1"] > 0.05
    assert abs(biased[-1]["leak/1"]) < 0.03


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.segment=colour", "data.segment: no column 'colour'; the stream has user, item, segment"),
        ("distill.tasks=[share]", "distill.tasks: no task 'share'; the stream has click, like"),
        ("distill=hidden", "distill=hidden: learns from the teacher's trunk, of which a store keeps the logits alone"),
    ],
)
def test_what_does_not_fit_is_answered_with_what_does(override, line):
    experiment, _ = build(*NAMES, override)
    with pytest.raises(io.InputError) as caught:
        experiment.init(jax.random.key(0))
    assert str(caught.value).startswith(line)


def test_faults_on_the_way_of_labels_lose_and_double_nothing(biased):
    ran = {}
    for fault in ("killed", "late", "duplicate", "missing", "bad"):
        rows = finished(build(*NAMES, "teacher.shift=0.8", f"labels.fault={fault}")[0])
        ran[fault] = rows
        assert (rows[-1]["labels/lost"], rows[-1]["labels/doubled"]) == (0, 0), fault
    # With the gate, a version that is bad leaves the good one to be read: the student is that of the clean run.
    assert science(ran["bad"]) == science(ran["duplicate"]) == science(biased)
    assert ran["bad"][-1]["labels/bad"] == 2 * 6  # two seeds; intervals 1, 4 ... 16 of 19
    told = {fault: (rows[-1]["labels/coverage"], rows[-1]["labels/seen"]) for fault, rows in ran.items()}
    assert told["bad"] == told["duplicate"] == (1, 1)
    assert told["late"][0] == told["killed"][0] == 1
    assert told["missing"][0] < 0.75
    assert all(told[fault][1] < 0.75 for fault in ("late", "killed", "missing"))
    assert science(ran["late"])[-1] == science(ran["missing"])[-1]  # a label that comes too late is one that is missing
    ungated = finished(build(*NAMES, "teacher.shift=0.8", "labels.fault=bad", "labels.gate.active=false")[0])
    assert ungated[-1]["labels/bad"] == 0
    assert ungated[-1]["change/1"] > biased[-1]["change/1"]
