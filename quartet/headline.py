"""The headline tables of all packages on one page."""

import base64
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from omegaconf import OmegaConf

from quartet.collect import collect
from quartet.faults import flatten
from quartet.progress import bar
from quartet.results import read_json, write_text

PICTURES = 6  # of one package on the page


def run(folder: Path, *, again: bool = False) -> int:
    """Run what `configs/headline.yaml` names and write `folder/index.html`.

    Args:
        folder: one folder per package goes into it.
        again: forget what is finished there.

    Returns:
        0; or 1 if a package failed, after the others were run.
    """
    # A process of its own for every package, as its command would be: none inherits the precision or memory of another.
    entries: Any = OmegaConf.to_container(OmegaConf.load(str(files("quartet.configs") / "headline.yaml")))
    sections, failed = [], []
    with bar("quartet", len(entries)) as progress:
        for entry in entries:
            target = folder / entry["package"]
            if again:
                shutil.rmtree(target, ignore_errors=True)
            progress.say(f"{entry['package']}: table={entry['table']}")
            overrides = ["-m", f"table={entry['table']}", f"hydra.sweep.dir={_quoted(str(target))}"]
            overrides += entry.get("overrides", [])
            done = subprocess.run([sys.executable, "-m", entry["package"], *overrides], stdout=subprocess.DEVNULL)
            if done.returncode:
                failed.append(entry["package"])
            else:
                sections.append(_section(entry, target))
            progress.advance(entry["package"])
    for section in sections:
        section["table"].show()
    page = write_text(folder / "index.html", _page(sections))
    print(f"open {page}")
    for package in failed:
        print(f"failed: {package}; its lines above say why", file=sys.stderr)
    return 1 if failed else 0


def _quoted(text: str) -> str:
    """A value as Hydra's grammar wants it where it may hold spaces, brackets or equals signs."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _section(entry: dict[str, Any], target: Path) -> dict[str, Any]:
    table = collect(target)
    pictures = []
    for path in target.rglob("*.png"):
        values = dict(flatten((read_json(path.parent / "result.json") or {}).get("config", {})))
        caption = ", ".join(f"{key} = {values.get(key)}" for key in table.keys)
        pictures.append((caption, base64.b64encode(path.read_bytes()).decode()))
    return {**entry, "name": entry["table"], "table": table, "pictures": sorted(pictures)[:PICTURES]}


def _page(sections: list[dict[str, Any]]) -> str:
    template = (files("quartet") / "headline.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True)
    return environment.from_string(template).render(sections=sections)
