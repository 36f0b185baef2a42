"""What README and docs show is what happens: their Python runs, their commands exist, their links lead somewhere."""

import contextlib
import io
import re

import jax
import pytest
from hydra import compose, initialize_config_dir

from quartet.launch import CONFIGS
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


PACKAGES = ("evalmetrics", "rwalk", "faultloc", "kdrec")


def blocks(language):
    pattern = re.compile(rf"```{language}\n(.*?)```", re.DOTALL)
    return [
        pytest.param(found, id=f"{page.name}-{index}")
        for page in PAGES
        for index, found in enumerate(pattern.findall(page.read_text()))
    ]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_print_what_their_comments_say(code):
    out = io.StringIO()
    # A user has jax as it comes, without the strictness of the tests.
    with contextlib.redirect_stdout(out), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(code, "block", "exec"), {"__name__": "readme"})
    expected = re.findall(r"^print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert out.getvalue().splitlines() == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_every_option_named_in_a_command_composes():
    """Overrides of the commands in README and docs, apart from those that stand for a user's own files."""
    named = set()
    for page in PAGES:
        for line in page.read_text().splitlines():
            package = line.split(" ")[0]
            if package in PACKAGES and "mine" not in line and "..." not in line:
                overrides = [word for word in line.split("#")[0].split(" && ")[0].split()[1:] if "=" in word]
                named.add(" ".join([package, *(word.strip("'") for word in overrides if not set(word) & set("*{"))]))
    assert len(named) > 5
    for overrides in sorted(named):
        package, *first = re.sub(r"=([\w.]+),[\w.,]+", r"=\1", overrides).split()  # the first value of each axis
        with initialize_config_dir(str(CONFIGS / package), version_base="1.3"):
            assert compose("config", first)._target_.startswith(package), overrides
