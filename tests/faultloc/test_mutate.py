"""Mutants are one change on one line; what their tests did is what a run of all tests in a process of its own shows."""

import ast

import numpy as np
import pytest

from faultloc import mutate, synthetic
from faultloc.collect.suite import Suite
from faultloc.io import InputError

SOURCE = '''\
LIMIT = 3


def f(a, b=1):
    """A docstring stays."""
    total = "é" if a < b and not a else a + b  # columns count bytes
    while total > LIMIT:
        total -= (a +
                  1)
        if total == 0:
            break
    return pick(a, b)
'''
LINES = set(range(1, 13))
# By hand: what each operator may do to SOURCE, line by line. Names in Python's sorted order of locals: a, b, total.
BY_HAND = {
    (6, "comparison", "a < b", "(a <= b)"), (6, "boolean", "a < b and not a", "(a < b or not a)"),
    (6, "negation", "not a", "a"), (6, "negation", "a < b and not a", "(not (a < b and (not a)))"),
    (6, "arithmetic", "a + b", "(a - b)"), (6, "constant", '"é"', "''"),
    (6, "name", "a", "b"), (6, "name", "a", "total"), (6, "name", "b", "a"), (6, "name", "b", "total"),
    (6, "assignment", 'total = "é" if a < b and not a else a + b', "total = None"),
    (7, "comparison", "total > LIMIT", "total >= LIMIT"), (7, "negation", "total > LIMIT", "not total > LIMIT"),
    (7, "name", "total", "a"), (7, "name", "total", "b"),
    (8, "name", "a", "b"), (8, "name", "a", "total"),
    (9, "constant", "1", "2"), (9, "constant", "1", "0"),
    (10, "comparison", "total == 0", "total != 0"), (10, "negation", "total == 0", "not total == 0"),
    (10, "constant", "0", "1"), (10, "constant", "0", "(-1)"), (10, "name", "total", "a"), (10, "name", "total", "b"),
    (11, "loop", "break", "continue"),
    (12, "return", "return pick(a, b)", "return None"), (12, "argument", "pick(a, b)", "pick(a)"),
    (12, "argument", "pick(a, b)", "pick(b, a)"),
    (12, "name", "a", "b"), (12, "name", "a", "total"), (12, "name", "b", "a"), (12, "name", "b", "total"),
}  # fmt: skip


def everything(seed=0):
    return list(mutate.mutants({"m.py": SOURCE}, {"m.py": LINES}, seed))


def test_the_mutants_of_a_function_are_those_worked_by_hand():
    assert {mutant[1:5] for mutant in everything()} == BY_HAND


def test_a_mutant_changes_its_line_and_moves_none():
    for mutant in everything():
        old, new = SOURCE.splitlines(), mutant.text.splitlines()
        assert [i + 1 for i, pair in enumerate(zip(old, new, strict=True)) if pair[0] != pair[1]] == [mutant.line]
        assert ast.dump(ast.parse(mutant.text)) != ast.dump(ast.parse(SOURCE))


def test_a_form_feed_moves_no_line():
    text = "import os\n\x0c\ndef f(x):\n    if x > 1:\n        return 2\n    return x + 1\n"
    found = {mutant[1:5] for mutant in mutate.mutants({"m.py": text}, {"m.py": {4, 5, 6}}, 0)}
    assert (6, "arithmetic", "x + 1", "x - 1") in found
    assert (4, "comparison", "x > 1", "x >= 1") in found


def test_every_line_comes_once_before_one_comes_twice_and_the_seed_decides_the_order():
    first = [mutant.line for mutant in everything()[:7]]
    assert sorted(first) == [6, 7, 8, 9, 10, 11, 12]
    assert everything(0) == everything(0)
    assert [m[:5] for m in everything(0)] != [m[:5] for m in everything(1)]


def test_strings_with_holes_patterns_and_code_outside_functions_are_left_alone():
    text = "A = 1 + 2\n\ndef f(x):\n    y: 3 = f'{x + 1}'\n    match x:\n        case 4:\n            pass\n"
    assert not list(mutate.mutants({"m.py": text}, {"m.py": {1, 3, 4, 6}}, 0))


@pytest.fixture(scope="module")
def workshop():
    return synthetic.workshop("toolz", 0, 2.0)


def test_the_tests_of_the_package_pass_and_are_recorded(workshop):
    spectrum = workshop.recording.spectrum
    assert spectrum.tests > 150
    assert not np.any(spectrum.failed)
    assert workshop.notes == []
    assert "toolz/itertoolz.py" in workshop.recording.files
    assert not any("tests" in file for file in workshop.recording.files)


def test_running_the_tests_that_reach_a_line_shows_what_running_all_does(workshop):
    found = workshop.after(0)
    path = str(workshop.root / found.mutant.path)
    full = Suite("toolz", 2.0).run({path: found.mutant.text})
    names = workshop.recording.tests
    failed = [full.tests[name].outcome in synthetic.FAILURES for name in names]
    np.testing.assert_array_equal(found.failed, failed)
    assert any(failed)
    bug = workshop.bug(found.number, found.bits, found.failed)
    covered = bug.recording.spectrum.covered()
    (column,) = bug.faulty
    runs = [found.mutant.line in full.tests[name].lines.get(path, ()) for name in names]
    np.testing.assert_array_equal(covered[:, column], runs)
    assert bug.kind == "synthetic"
    assert bug.reachable


def test_after_a_mutant_the_package_is_whole_again(workshop):
    base = workshop.suite.run({})
    assert {test.outcome for test in base.tests.values()} == {"passed"}
    assert {name: workshop._pairs(test) for name, test in base.tests.items()} == workshop._base


def test_mutants_that_hang_or_kill_the_interpreter_are_noted_and_the_next_one_runs(workshop):
    path = str(workshop.root / "toolz" / "recipes.py")
    text = workshop.texts["toolz/recipes.py"]
    names = [name for name in workshop.recording.tests if "test_recipes" in name]
    hangs = text.replace("    return ", "    while True: pass\n    return ", 1)
    suite = Suite("toolz", 0.3)
    outcomes = {test.outcome for test in suite.run({path: hangs}, names).tests.values()}
    assert outcomes == {"timeout", "passed"}
    dies = text.replace("    return ", "    __import__('os').abort()\n    return ", 1)
    answer = suite.run({path: dies}, names)
    assert {test.outcome for test in answer.tests.values()} == {"crash", "passed"}
    sleeps = text.replace("    return ", "    __import__('signal').pause()\n    return ", 1)
    answer = suite.run({path: sleeps}, names)
    assert sorted(test.outcome for test in answer.tests.values()) == ["passed", "timeout"]
    assert {test.outcome for test in suite.run({path: text}, names).tests.values()} == {"passed"}


def test_a_package_without_tests_or_that_is_not_there_is_one_line():
    with pytest.raises(InputError, match=r"cannot load no_such_package \(ModuleNotFoundError: no package no_such_pack"):
        synthetic.Workshop("no_such_package", 0, 1.0)
    with pytest.raises(InputError, match="tabulate ships no test that passes"):
        synthetic.Workshop("tabulate", 0, 1.0)


@pytest.mark.usefixtures("workshop")
def test_the_same_seed_makes_the_same_bugs():
    first, second = (list(synthetic.bugs("toolz", 3, 0, 2.0)) for _ in range(2))
    assert [bug.name for bug in first] == [bug.name for bug in second]
    fresh = synthetic.Workshop("toolz", 0, 2.0).after(0)
    np.testing.assert_array_equal(fresh.bits, first[0].recording.spectrum.bits)


def test_an_interrupted_exercise_goes_on_where_it_was_with_the_same_numbers(key):
    from faultloc.exercise import Exercise
    from faultloc.options import Display, Mutants, Statistics, Task
    from faultloc.rankers import Formula

    def make():
        options = Mutants(name="mutants", package="toolz", mutants=6, limit=None, seed=0, test_timeout=2.0)
        display = Display(top=2, context=0, beside=())
        task = Task(name="rank", clean=(), buggy=())
        return Exercise(options, Formula("ochiai"), display, Statistics(resamples=100, level=0.9), task)

    def go(exercise, totals, indices):
        for index in indices:
            totals, row = exercise.score(index, totals, key=key, place=lambda x: x)
        return totals, row

    straight, row = go(make(), make().totals(), range(7))
    half, _ = go(make(), make().totals(), range(3))
    synthetic.workshop.cache_clear()  # a new process knows nothing of the mutants that were made
    resumed = make()
    later, again = go(resumed, half, range(3, 7))
    for one, other in zip(straight, later, strict=True):
        np.testing.assert_array_equal(one, other)
    assert row == again
    assert row["bugs"] == 6
