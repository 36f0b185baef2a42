"""Tables: cells grouped, seeds averaged, five formats, nothing averaged that does not belong together."""

import csv
import io
import json
import math

import pytest

from quartet.collect import collect
from quartet.faults import UserFault
from quartet.results import write_json
from quartet.tables import FORMATS
from scripts import tables as script


def result(value, *, kernel="abs", seed=0, limit=None, report=None):
    config = {"kernel": {"name": kernel}, "run": {"seed": seed, "limit": limit}, "report": report}
    where = {"date": "2026-01-01", "command": "evalmetrics -m", "commit": "abc", "hardware": "a cpu", "versions": {}}
    metrics = {"step": 1, "macro": value, "a_b": 2 * value}
    return {"metrics": metrics, "failed": [], "seconds": 1.5, "config": config, "provenance": where}


REPORT = {
    "title": "Kernels",
    "rows": ["kernel.name"],
    "columns": ["macro", "a_b"],
    "best": {"macro": "max"},
    "paper": {"source": "Table 2", "values": [{"kernel.name": "abs", "macro": 0.5}]},
}


@pytest.fixture
def sweep(tmp_path):
    for kernel, seed, value in [("abs", 0, 0.25), ("abs", 1, 0.75), ("ait", 0, 0.125), ("ait", 1, 0.125)]:
        name = f"{kernel}{seed}"
        write_json(tmp_path / name / "result.json", result(value, kernel=kernel, seed=seed, report=REPORT))
    return tmp_path


def test_averages_seeds_and_compares_with_what_is_published(sweep):
    table = collect(sweep)
    (labels, (macro, _)), (_, (other, _)) = table.rows
    assert labels == ("abs",)
    assert macro.mean == 0.5
    assert macro.error == pytest.approx(math.sqrt(0.125 / 2))  # by hand: variance .125 over two seeds
    assert macro.count == 2
    assert macro.paper == 0.5
    assert macro.best
    assert other.paper is None
    assert not other.best
    assert table.provenance["seconds"] == 6.0


def test_every_format_carries_the_numbers(sweep):
    table = collect(sweep)
    for form in FORMATS:
        assert "0.125" in table.render(form), form
    assert "| **0.5 ± 0.25** | 0.5" in table.render("md")
    assert r"a\_b" in table.render("latex")
    assert r"$\pm$" in table.render("latex")
    rows = list(csv.DictReader(io.StringIO(table.render("csv"))))
    assert rows[0]["macro"] == "0.5"
    assert rows[0]["macro_published"] == "0.5"
    assert rows[1]["macro_n"] == "2"
    assert json.loads(table.render("json"))["rows"][1]["macro"]["mean"] == 0.125
    assert "<b>0.5 ± 0.25</b>" in table.render("html")


def test_html_escapes_what_users_named(tmp_path):
    write_json(tmp_path / "a" / "result.json", result(1.0, kernel="<script>", report=REPORT))
    assert "<script>" not in collect(tmp_path).render("html")


def test_a_trial_run_is_not_averaged_with_a_whole_one(sweep):
    write_json(sweep / "trial" / "result.json", result(0.9, limit=2, report=REPORT))
    with pytest.raises(UserFault, match=r"runs of one row differ in run\.limit"):
        collect(sweep)


def test_a_sweep_without_a_table_file_shows_what_varies(tmp_path):
    for kernel in ("abs", "ait"):
        write_json(tmp_path / kernel / "result.json", result(1.0, kernel=kernel))
    table = collect(tmp_path)
    assert table.keys == ("kernel.name",)
    assert table.columns == ("macro", "a_b")


def test_script_says_in_one_line_what_is_wrong(tmp_path, sweep, capsys):
    assert script.main([str(tmp_path / "nothing")]) == 2
    assert "no finished run there" in capsys.readouterr().err
    assert script.main([str(sweep), "--format", "word"]) == 2
    assert "there are md, latex, csv, html, json" in capsys.readouterr().err


def test_results_page_says_where_each_table_comes_from(sweep, tmp_path):
    bench = tmp_path / "bench.json"
    row = {"name": "pairs", "peer": "NumPy", "ours_s": 0.01, "peer_s": 0.2, "ratio": 20.0, "error": 0.0, "bar": 10.0}
    where = {
        "commit": "abc",
        "command": "bench.py x --only a --json /p/q.json --reps 2",
        "date": "2026-01-01",
        "hardware": "a cpu",
        "package": "evalmetrics",
        "threads": 2,
    }
    missing = {"name": "pairs", "peer": "cdist", "ours_s": 0.01, "peer_s": None, "bar": 2.5, "met": None}
    details = [{"status": "measured", "floor_s": 0.002, "extra_mb": 3.0}, {"status": "not installed"}]
    write_json(bench, {"provenance": where, "rows": [{**row, "met": True}, missing], "details": details})
    page = tmp_path / "RESULTS.md"
    assert script.main([str(sweep), "--bench", str(bench), "--results", str(page)]) == 0
    text = page.read_text()
    assert "commit abc" in text
    assert "a cpu" in text
    assert "| pairs" in text
    measured, absent = (line for line in text.splitlines() if line.startswith("| pairs"))
    cells = [cell.strip() for cell in measured.split("|")[1:-1]]
    assert cells == ["pairs", "NumPy", "2", "10", "200", "20", "10", "yes", "0", "5", "3"]
    assert "not installed" in absent
    assert "yes" not in absent
    assert "`bench.py x --only a --reps 2`" in text
