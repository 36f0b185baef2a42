"""A ranking as SARIF 2.1.0, which code hosts show beside the source."""

import hashlib
import importlib.metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from faultloc.cases import Suspect
    from faultloc.ranking import Ranking

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(found: "Ranking", top: int) -> dict[str, Any]:
    """The first suspects as one run of a tool.

    Args:
        found: the ranking.
        top: number of results.

    Returns:
        The log, plain values; `rank` of a result is 100 for the most suspicious line and falls with its place.
    """
    rule = {
        "id": f"faultloc/{found.ranker}",
        "shortDescription": {"text": f"Line that failing tests point at, by {found.ranker}"},
        "fullDescription": {
            "text": "The score compares the failing and the passing tests that run the line. It is a hint where to "
            "look first, not a proof of a fault."
        },
        "defaultConfiguration": {"level": "note"},
    }
    driver = {"name": "faultloc", "version": importlib.metadata.version("quartet"), "rules": [rule]}
    results = [_result(suspect, found) for suspect in found.suspects[:top]]
    notes = [{"level": "note", "message": {"text": note}} for note in found.notes]
    run = {
        "tool": {"driver": driver},
        "originalUriBaseIds": {"SRCROOT": {"uri": found.case.root.as_uri().rstrip("/") + "/"}},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": notes}],
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(suspect: "Suspect", found: "Ranking") -> dict[str, Any]:
    place = f"place {suspect.first}" + (f" to {suspect.last}, tied" if suspect.last > suspect.first else "")
    share = (suspect.first + suspect.last) / 2 - 1
    region: dict[str, Any] = {"startLine": suspect.line}
    if suspect.text:
        region["snippet"] = {"text": suspect.text}
    # Independent of the line number, so that a host knows the result again after an edit above it.
    content = f"{suspect.file}\n{suspect.scope}\n{suspect.text.strip()}"
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(suspect.file), "uriBaseId": "SRCROOT"},
            "region": region,
        }
    }
    if suspect.scope:
        location["logicalLocations"] = [{"fullyQualifiedName": suspect.scope, "kind": "function"}]
    return {
        "ruleId": f"faultloc/{found.ranker}",
        "ruleIndex": 0,
        "level": "note",
        "rank": round(100 * (1 - share / found.case.recording.spectrum.size), 3),
        "message": {"text": f"{suspect.reason[0].upper()}{suspect.reason[1:]}; {place} by {found.ranker}."},
        "locations": [location],
        "partialFingerprints": {"line/v1": hashlib.sha256(content.encode()).hexdigest()[:32]},
    }
