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

WORLD = ["data.events=6000", "data.users=60"]
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
            object.__setattr__(self, "last", leaves(state))
            yield state, row


def watched(experiment, **values):
    copy = Watched(**{field.name: getattr(experiment, field.name) for field in dataclasses.fields(Ranking)})
    for name, value in values.items():
        object.__setattr__(copy, name, value)
    return copy


def test_a_resumed_run_equals_a_whole_one_bit_for_bit(tmp_path):
    experiment, shell = build(*NAMES, "checkpoint.every=1", "checkpoint.seconds=null")
    whole = watched(experiment)
    rows = [row for _, row in whole.run(whole.init(jax.random.key(shell.run.seed)))]
    assert len(rows) == experiment.length() == 10
    folder = RunFolder(tmp_path / "run")
    folder.start({"config": {}, "inputs": {}}, anew=False)
    with pytest.raises(Stopped):
        drive(watched(experiment, stop_before=7), shell, folder, {"config": {}, "inputs": {}})
    resumed = watched(experiment)
    drive(resumed, shell, folder, {"config": {}, "inputs": {}})
    assert read_rows(folder.metrics) == [{"step": i + 1, **plain(row)} for i, row in enumerate(rows)]
    for a, b in zip(whole.last, resumed.last, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_page_and_the_pictures_are_written(tmp_path):
    from PIL import Image

    experiment, _ = build(*NAMES)
    rows = [row for _, row in experiment.run(experiment.init(jax.random.key(0)))]
    experiment.report(rows, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert "auxiliary distillation" in text
    assert f"{rows[-1]['change/1']:.5g}" in text
    for name in ("ne", "calibration", "segments"):
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert picture.width > 600
            assert len(picture.convert("RGB").getcolors(1 << 20)) > 10


def test_the_row_is_made_of_the_parts_it_names():
    experiment, _ = build(*NAMES, "distill=direct", "teacher.shift=0.5", "distill.weight=[0.5,0.25]")
    rows = [row for _, row in experiment.run(experiment.init(jax.random.key(0)))]
    last = rows[-1]
    assert last["identity/1"] == pytest.approx(1 + 0.5 * (last["teacher/calibration/1"] - 1))
    assert last["weight=0.25/identity/1"] == pytest.approx(1 + 0.25 * (last["teacher/calibration/1"] - 1))
    assert last["leak/1"] > last["weight=0.25/leak/1"] > 0
    assert "log_loss" not in rows[experiment.scope.scored - 1]
    assert last["cost/ratio"] > 1
    assert last["events"] == 6000


def test_a_biased_teacher_leaks_into_direct_and_not_into_auxiliary():
    leaks = {}
    for method in ("direct", "auxiliary"):
        experiment, _ = build(*NAMES, f"distill={method}", "teacher.shift=0.8", "data.events=20000", "train.seeds=3")
        leaks[method] = [row for _, row in experiment.run(experiment.init(jax.random.key(0)))][-1]
    assert leaks["direct"]["leak/1"] > 0.1
    assert abs(leaks["auxiliary"]["leak/1"]) < 0.02
    expected = leaks["direct"]["identity/1"] - 1
    assert leaks["direct"]["leak/1"] == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("data.segment=colour", "data.segment: no column 'colour'; the stream has user, item, segment"),
        ("distill.tasks=[share]", "distill.tasks: no task 'share'; the stream has click, like"),
    ],
)
def test_a_name_that_the_stream_has_not_is_answered_with_those_it_has(override, line):
    experiment, _ = build(*NAMES, override)
    with pytest.raises(io.InputError) as caught:
        experiment.init(jax.random.key(0))
    assert str(caught.value).startswith(line)
