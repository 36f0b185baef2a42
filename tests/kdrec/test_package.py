"""The package as it is imported."""

import doctest

import kdrec


def test_the_example_of_the_package_runs():
    found = doctest.testmod(kdrec)
    assert found.attempted == 5
    assert found.failed == 0


def test_every_name_it_promises_is_there():
    for name in kdrec.__all__:
        assert getattr(kdrec, name) is not None
