"""Told what is known, the list is that of the conditioned posterior; a session gives the same, answer by answer."""

import json

import numpy as np
import pytest

from faultloc import cases, models, ranking, report, triage
from faultloc.io import InputError
from faultloc.options import Display, Statistics, Task
from faultloc.rankers import Formula, Posterior, shipped
from tests.faultloc import shop

TOP = Display(top=3, context=0, beside=())


@pytest.fixture(scope="module")
def found():
    """The shop, ranked by the model that ships; its two failing tests share the faulty line."""
    import jax

    posterior = Posterior(ridge=10.0, steps=100)
    return ranking.rank(shop.case(), posterior, (), jax.random.key(0), Statistics(resamples=100, level=0.9))


def lines(given):
    return [suspect.line for suspect in given.suspects]


def test_a_clean_line_gives_its_probability_to_the_others_in_proportion(found):
    first, *others = found.suspects
    after = ranking.rerank(found, [cases.locate(found.case.recording, f"shop.py:{first.line}")], [])
    assert lines(after) == lines(found)[1:]
    np.testing.assert_allclose(
        [s.probability for s in after.suspects], [s.probability / (1 - first.probability) for s in others], rtol=1e-9
    )
    assert ranking.rerank(after, [], []).suspects == found.suspects


def test_what_is_known_ends_the_intervals_which_knew_nothing_of_it(found):
    after = ranking.rerank(found, [cases.locate(found.case.recording, f"shop.py:{found.suspects[0].line}")], [])
    heads = [
        [line for line in report.listing(given, top=3, context=0, colours=False) if line.startswith("#")]
        for given in (found, after)
    ]
    assert all("when tests are redrawn" in head for head in heads[0])
    assert not any("redrawn" in head for head in heads[1])
    assert all("probability" in head for head in heads[1])
    assert {(s.low, s.high) for s in after.suspects} == {(None, None)}


def test_ranking_again_is_the_posterior_of_the_model_itself(found):
    parsed = found.basis.score((1,), (2,))
    assert parsed[1] == parsed[2] == -np.inf
    assert np.logaddexp.reduce(parsed) == pytest.approx(0)
    assert shipped("python").subclasses == 1
    assert callable(models.rank)


def test_the_best_set_is_a_single_line_here_as_one_explains_both_failures(found):
    assert len(found.sets) == ranking.SETS
    assert found.sets[0][0] == (("shop.py", found.suspects[0].line),)
    assert found.sets[0][1] == pytest.approx(found.suspects[0].score)


def test_where_no_line_explains_all_failures_sets_are_shown(found):
    given = found.case.recording
    covered = np.asarray(given.spectrum.covered(), bool)
    failed = np.asarray(given.spectrum.failed, bool)
    one, other = np.flatnonzero(covered[failed].all(0))[:2]
    covered[np.flatnonzero(failed)[0]] = np.eye(len(given.lines), dtype=bool)[one]
    covered[np.flatnonzero(failed)[1]] = np.eye(len(given.lines), dtype=bool)[other]
    from faultloc.spectrum import pack

    case = found.case._replace(recording=given._replace(spectrum=pack(covered, failed)))
    import jax

    apart = ranking.rank(
        case, Posterior(ridge=10.0, steps=100), (), jax.random.key(0), Statistics(resamples=100, level=0.9)
    )
    text = report.listing(apart, top=2, context=0, colours=False)
    names = sorted(f"shop.py:{given.lines[i]}" for i in (one, other))
    told = next(line for line in text if " + " in line)
    assert sorted(told.split("  ")[1].split(" + ")) == names


def test_a_session_takes_answers_by_place_and_by_name_and_undoes_them(found):
    said = []
    second = found.suspects[1]
    answers = ["c 1", f"b shop.py:{second.line}", "u", "x", "c 99", "b nowhere.py:1", "l 1", "q", "c 1"]
    last = triage.session(found, answers, said.append, top=3, context=0)
    assert [tuple(found.case.recording.lines[list(known)]) for known in (last.clean, last.buggy)] == [
        (found.suspects[0].line,), (),
    ]  # fmt: skip
    assert said[0] == said[6] == triage.HELP
    assert said[1].endswith("1 clean, 0 buggy")
    assert said[3].endswith("1 clean, 1 buggy")
    assert "99: there are" in said[7]
    assert "nowhere.py:1: is not FILE:LINE" in said[8]
    assert sum(line.startswith("#") for line in said[9].splitlines()) == 1
    assert len(said) == 10


def test_what_is_known_before_is_taken_from_the_options(found, tmp_path, capsys):
    first = found.suspects[0]
    known = triage.start(found, [f"shop.py:{first.line}"], [])
    triage.finish(known, tmp_path, TOP, Task(name="rank", clean=(), buggy=()))
    printed = capsys.readouterr().out
    assert f"known to be clean: shop.py:{first.line}" in printed
    assert (tmp_path / "spectrum.npz").is_file()
    told = json.loads((tmp_path / "suspects.json").read_text())["suspects"][0]
    assert told["low"] is told["high"] is None


def test_mistakes_are_told(found, key):
    with pytest.raises(InputError, match="named both clean and buggy"):
        ranking.rerank(found, [1], [1])
    with pytest.raises(InputError, match=r"shop.py:3: holds no instruction; the nearest line of shop.py that does is"):
        cases.locate(found.case.recording, "shop.py:3")
    formula = ranking.rank(found.case, Formula("ochiai"), (), key, Statistics(resamples=100, level=0.9))
    with pytest.raises(InputError, match="ochiai is a formula and cannot be told what is known"):
        ranking.rerank(formula, [1], [])
