"""Turn a fault of the user into one line that starts with the dotted key; know our own faults from it."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

PLUGINS = {"joblib": "joblib", "submitit": "submitit", "ray": "ray"}


class UserFault(ValueError):
    """What the user gave cannot be run; the message is one line that says what to do.

    The launcher shows the line alone and exits with 2. The packages of science, which do not import the shell, mark
    their own exceptions of this kind with the attribute `is_input_fault = True`.
    """

    is_input_fault = True


def explain(error: BaseException, configs: Path, overrides: list[str]) -> str | None:
    """Say in one line what the user gave, what is allowed and what to do.

    Args:
        error: what was raised.
        configs: folder of the package's configs, to list what exists.
        overrides: what the user typed.

    Returns:
        The line; None where the fault is ours and its traceback should be seen.
    """
    chain = list(_causes(error))
    for link in chain:
        if getattr(link, "is_input_fault", False):
            return " ".join(str(link).split())
        if isinstance(link, MissingMandatoryValue):
            return f"{link.full_key}: required; give {link.full_key}=VALUE"
        if (lines := _invalid(link, error)) is not None:
            return lines
        if isinstance(link, OSError) and link.filename is not None:
            return f"{link.filename}: {str(link.strerror).lower()}; check the path and its permissions"
        if (line := _unreadable(link, overrides)) is not None:
            return line
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return None
    text = " ".join(str(link) for link in chain)
    return (
        _unknown_option(str(error))
        or _unknown_key(text, configs, overrides)
        or _missing_plugin(text)
        or _wrong_target(error, text)
        or " ".join(str(error).split())
    )


def flatten(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and value of every leaf of nested dictionaries."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _invalid(link: BaseException, error: BaseException) -> str | None:
    """The faults that pydantic found, one after the other, each with its dotted key."""
    import pydantic

    if not isinstance(link, pydantic.ValidationError):
        return None
    found = re.search(r"full_key: (\S+)", str(error))
    prefix = found.group(1) if found else ""
    lines = []
    for fault in link.errors(include_url=False):
        key = ".".join([prefix, *(str(part) for part in fault["loc"] if "[" not in str(part))]).strip(".")
        match fault["type"]:
            case "unexpected_keyword_argument":
                lines.append(f"{key}: unknown key; known here: {_known_fields(error)}")
            case "missing" | "missing_argument":
                lines.append(f"{key}: required; give {key}=VALUE")
            case "value_error":
                lines.append(f"{key}: {fault['ctx']['error']}")
            case _:
                message = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
                lines.append(f"{key}: must be {message}, got {fault['input']!r}")
    return "; ".join(lines)


def _unreadable(link: BaseException, overrides: list[str]) -> str | None:
    """An override, a config file or a combination of flags that cannot be read."""
    text = " ".join(str(link).split())
    match type(link).__name__:
        case "OverrideParseException":
            override = getattr(link, "override", "")
            return (
                f"{override}: cannot be read ({text.split(' See ')[0]}); quote values that hold = , ~ or brackets, "
                "as in 'key=\"value\"'"
            )
        case "ScannerError" | "ParserError":
            return f"config file: {text}"
        case "ValueError" if text.startswith("Config group override must be"):
            bare = next((override for override in overrides if override.endswith("=null")), "GROUP=null")
            return f"{bare}: a config group needs the name of an option; --help lists them"
        case "ValueError" if text.startswith("Only one of --run"):
            return f"--run, --multirun, --cfg, --info: {text}"
    return None


def _known_fields(error: BaseException) -> str:
    from dataclasses import fields

    from hydra.utils import get_class

    found = re.search(r"call to target '([\w.]+)'", str(error))
    return ", ".join(field.name for field in fields(get_class(found.group(1)))) if found else "see --cfg job"


def _unknown_option(text: str) -> str | None:
    """An option of a group that does not exist."""
    found = re.search(
        r"Could not find '([^']+)'\s*(?:Available options in '[^']+':)?((?:\s+\S+)*?)\s*(?:Config search|$)", text
    )
    if found is None:
        return None
    group, _, option = found.group(1).rpartition("/")
    available = found.group(2).split()
    if group == "hydra/launcher" and option in PLUGINS:
        return f"{group}={option}: its launcher is not installed; pip install 'quartet[{PLUGINS[option]}]'"
    if not available:
        return f"{group or option}: no such group or option; --help lists the groups"
    return f"{group}: no option {option!r}; available: {', '.join(available)}"


def _unknown_key(text: str, configs: Path, overrides: list[str]) -> str | None:
    """A key, or a group, that does not exist; lists those beside it."""
    found = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", text)
    if found is None:
        return None
    key = found.group(1) or found.group(2)
    group = key.split(".")[0]
    unchosen = (configs / group).is_dir() and not any(o.startswith(f"{group}=") for o in overrides)
    if "." in key and unchosen and group not in _siblings(group, configs, overrides):
        options = sorted(path.stem for path in (configs / group).glob("*.yaml"))
        return f"{key}: no {group} is chosen; choose one with {group}=NAME: {', '.join(options)}"
    siblings = _siblings(key, configs, overrides)
    close = difflib.get_close_matches(key.split(".")[-1], siblings, 1)
    others = ", ".join(f"{group}={name}" for name in _options_with(key, configs))
    hint = f"it belongs to {others}; " if others else f"did you mean {close[0]}? " if close else ""
    return f"{key}: unknown key; {hint}known here: {', '.join(siblings)}"


def _options_with(key: str, configs: Path) -> list[str]:
    """Options of the key's group that define it, where the one that is chosen does not."""
    from omegaconf import OmegaConf

    group, _, rest = key.partition(".")
    options = {path.stem: OmegaConf.to_container(OmegaConf.load(path)) for path in (configs / group).glob("*.yaml")}
    return sorted(name for name, option in options.items() if rest in dict(flatten(option)))


def _siblings(key: str, configs: Path, overrides: list[str]) -> list[str]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    groups = [o for o in overrides if re.match(r"[\w/@]+=\w+$", o) and not o.startswith(key + "=")]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(configs), version_base="1.3"):
        try:
            config = compose("config", overrides=groups)
        except HydraException:
            config = compose("config")
    parent: Any = config
    for part in key.split(".")[:-1]:
        if not OmegaConf.is_dict(parent) or part not in parent:
            break
        parent = parent[part]
    names = parent.keys() if OmegaConf.is_dict(parent) else config.keys()
    return sorted(str(name) for name in names if not str(name).startswith("_"))


def _missing_plugin(text: str) -> str | None:
    for name, extra in PLUGINS.items():
        if f"hydra_{name}_launcher" in text:
            return f"hydra/launcher={name}: its launcher is not installed; pip install 'quartet[{extra}]'"
    return None


def _wrong_target(error: BaseException, text: str) -> str | None:
    found = re.search(r"(?:Error locating target|Error loading) '([\w.]+)'", text)
    if found is None:
        return None
    where = re.search(r"full_key: (\S+)", text)
    prefix = f"{where.group(1)}._target_" if where else "_target_"
    return f"{prefix}: cannot import {found.group(1)} ({str(error.__cause__ or error).splitlines()[0]})"
