"""Imports go one way, and importing a package of science loads none of the shell's libraries."""

import ast
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

SCIENCE = [name for name in ("kdrec", "rwalk", "evalmetrics", "faultloc") if (REPOSITORY / name).is_dir()]
SHELL = {"hydra", "omegaconf", "wandb", "orbax", "rich", "logging", "quartet"}
# Modules named for reading files or making pages import what they need, inside functions.
DOORS = {"__main__.py"}
SCORED = {("rwalk", "experiment.py"), ("rwalk", "registration.py")}  # experiments that score with a sibling
# Bases are kept as checkpoints, in pieces where several devices hold them: the one use of orbax outside of the shell.
CACHES = {("rwalk", "cache.py"): {"orbax"}}
HEAVY = ("hydra", "omegaconf", "wandb", "orbax", "matplotlib", "rich", "nibabel", "flax")


def imports(path, *, top_level=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]


def modules(package):
    return sorted((REPOSITORY / package).rglob("*.py"))


@pytest.mark.parametrize("package", SCIENCE)
def test_science_imports_neither_the_shell_nor_a_sibling(package):
    siblings = set(SCIENCE) - {package}
    for path in modules(package):
        if path.name in DOORS:
            continue
        allowed = {"evalmetrics"} if (package, path.name) in SCORED else set()
        allowed |= CACHES.get((package, path.name), set())
        assert not (set(imports(path)) & ((SHELL | siblings) - allowed)), path


def test_the_shell_names_no_package_of_science():
    for path in modules("quartet"):
        assert not set(imports(path)) & {"kdrec", "rwalk", "evalmetrics", "faultloc"}, path


@pytest.mark.parametrize("package", SCIENCE)
def test_options_load_without_jax(package):
    code = f"import sys, {package}.options; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


@pytest.mark.parametrize("package", SCIENCE)
def test_importing_a_package_is_light(package):
    code = f"import sys, {package}; loaded = [m for m in {HEAVY!r} if m in sys.modules]; assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_the_command_line_loads_nothing_heavy_before_a_job():
    heavy = ("jax", "numpy", "flax", "optax", "orbax", "wandb", "matplotlib", "pydantic")
    code = f"import sys, quartet.launch; loaded = [m for m in {heavy!r} if m in sys.modules]; assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


@pytest.mark.parametrize("package", ["quartet", *SCIENCE])
def test_files_and_functions_stay_short(package):
    for path in modules(package):
        text = path.read_text()
        assert text.count("\n") <= 310, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno <= 65, f"{path}: {node.name}"
