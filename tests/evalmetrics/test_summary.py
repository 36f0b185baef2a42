import math
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from evalmetrics import figures, summary
from tests.evalmetrics.rows import make_row


def test_regions_are_gathered_by_name_over_cases():
    rows = [
        make_row("a", match=(2, 0, 1)),
        make_row("b", match=(2, 1, 0)),
        make_row("c", match=(2, 0, 1)),
        make_row("d", prediction=("a", "b", "c", "e"), match=(2, 0, 1, 3)),
    ]
    table = {region.name: region for region in summary.regions(rows, lambda values: (values.min(), values.max()))}
    assert list(table) == ["background", "organ", "lesion", "e"]
    assert (table["organ"].matched, table["organ"].agreeing, table["organ"].cases) == ("a", 3, 4)
    assert table["organ"].mean == pytest.approx(np.mean([row["region"][1] for row in rows]))
    assert table["e"].extra
    assert summary.unmatched(rows) == [("prediction", "e", 1)]


def test_the_matrix_puts_matches_on_the_diagonal():
    rows = [make_row("a", match=(2, 0, 1)), make_row("b", match=(1, 0, 2))]
    found = summary.matrix(rows)
    np.testing.assert_allclose(np.diag(found.values), np.mean([row["region"] for row in rows], axis=0))
    assert found.cells == [(0, 0), (1, 1), (2, 2)]
    assert "each case's own matching" in found.note
    single = summary.matrix(rows[:1])
    assert single.columns == ["c", "a", "b"]


def test_the_matrix_of_cases_with_different_regions_is_that_of_the_median_case():
    rows = [
        make_row(case, reference=(case, "x", "y"), macro=score) for case, score in (("a", 0.1), ("b", 0.5), ("c", 0.9))
    ]
    found = summary.matrix(rows)
    assert found.rows[0] == "b"
    assert "median case, b" in found.note


def test_an_unmatched_region_of_the_reference_has_no_frame():
    row = make_row(prediction=("a", "b"), match=(1, 2, 0))
    row["pairs"] = [[0.1, 0.9], [math.nan, None], [0.7, 0.2]]
    found = summary.matrix([row])
    assert found.cells == [(0, 0), (2, 1)]
    assert summary.unmatched([row]) == [("reference", "organ", 1)]
    ET.fromstring(figures.heat(found))


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], [0.0, 1.0], [0.701, 0.702], [math.nan], [-0.2, 0.3], [1.0, 1.0]])
def test_axes_hold_their_values(values):
    low, high, ticks = figures.range_of(values)
    assert low < high
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in values if math.isfinite(value))
    assert 2 <= len(ticks) <= 8
    assert ticks[0] == pytest.approx(low)
