"""From a composed config to validated objects: what may be named, what is known, what makes two runs the same."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from quartet.faults import UserFault

# What decides the numbers of a run; everything else of the shell says where and how it is computed and kept.
DECIDING = ("seed", "precision", "limit", "restore")


def resolve(config: DictConfig) -> dict[str, Any]:
    """The config as plain values, without the folder that the run goes to.

    Raises:
        omegaconf.errors.MissingMandatoryValue: a value marked `???` was not given.
        UserFault: a group of the shell was taken away.
    """
    resolved: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    if not isinstance(resolved.get("run"), dict):
        message = "run: required; choose one with run=NAME, such as run=default"
        raise UserFault(message)
    return resolved | {"run": {k: v for k, v in resolved["run"].items() if k != "folder"}}


def identity(resolved: dict[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that decides the numbers: two runs that share it are the same run."""
    science = {k: v for k, v in resolved.items() if k not in ("tracking", "checkpoint", "devices", "report")}
    return science | {"run": {k: v for k, v in resolved["run"].items() if k in DECIDING}}


def check_targets(node: Any, ours: tuple[str, ...], trusted: tuple[str, ...], path: str = "") -> None:
    """Refuse a `_target_` outside our packages and those that the user trusts.

    Args:
        node: resolved config.
        ours: prefixes of our packages, with their dot.
        trusted: prefixes that the user added.
        path: dotted key of `node`.

    Raises:
        UserFault: names the key, what is allowed and how to allow more.
    """
    if isinstance(node, list):
        node = dict(enumerate(node))
    if not isinstance(node, dict):
        return
    target = node.get("_target_")
    allowed = (*ours, *(prefix.rstrip(".") + "." for prefix in trusted))
    if target is not None:
        found = str(target)
        if found.startswith(allowed):
            # A module of ours that imports `os` must not open a way to `os.system`.
            found = f"{getattr(hydra.utils.get_object(found), '__module__', found)}."
        if not found.startswith(allowed):
            message = (
                f"{path}._target_: {target} is outside {', '.join(p.rstrip('.') for p in allowed)}; if you trust it, "
                f"add run.trusted=[{found.split('.')[0]}]"
            )
            raise UserFault(message.lstrip("."))
    for key, value in node.items():
        check_targets(value, ours, trusted, f"{path}.{key}".lstrip("."))


def instantiate(config: DictConfig, name: str) -> Any:
    """Build one group of a config.

    Raises:
        UserFault: the group was taken away, or replaced by a plain value.
    """
    part = config.get(name)
    if not OmegaConf.is_config(part):
        message = f"{name}: is a group of keys, got {part!r}; choose an option with {name}=NAME or set {name}.KEY=VALUE"
        raise UserFault(message)
    return hydra.utils.instantiate(part, _convert_="all")


def experiment(config: DictConfig, shell: tuple[str, ...], groups: Path) -> Any:
    """Build the experiment that a config describes.

    Args:
        config: composed.
        shell: top-level keys that are not the experiment's.
        groups: folder of the package's config groups.

    Returns:
        The experiment.

    Raises:
        UserFault: a top-level key is unknown or missing.
    """
    target = hydra.utils.get_class(config._target_)
    known = {field.name: field.default is not MISSING for field in fields(target)}
    unknown = sorted(str(key) for key in config if key not in {*known, *shell, "report", "_target_"})
    if unknown:
        message = f"{unknown[0]}: unknown key; known here: {', '.join(sorted({*known, *shell}))}"
        raise UserFault(message)
    parts = {}
    for name, optional in known.items():
        if not (optional and config.get(name) is None):
            if config.get(name) is None and (groups / name).is_dir():
                options = ", ".join(sorted(path.stem for path in (groups / name).glob("*.yaml")))
                message = f"{name}: required; choose one with {name}=NAME: {options}"
                raise UserFault(message)
            parts[name] = instantiate(config, name)
    # Hydra builds the parts, ours stays the class: its own mistakes then keep their traceback.
    return target(**parts)
