"""Read a recipe's YAML file into plain sections, and override single values in them (``--set section.key=value``)."""

from pathlib import Path
from typing import Any

import yaml

from rlvr_kit.errors import InputError


class _UniqueKeys(yaml.SafeLoader):
    """A YAML loader that refuses a key that is in a section twice; YAML itself would silently use the second one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := sorted({str(key) for key in keys if keys.count(key) > 1}):
            problem = f"{', '.join(twice)} stands there twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_mapping(node, deep)


def read_sections(path: Path) -> dict[str, Any]:
    """Return the sections of a recipe's file.

    Raises:
        UserError: the file cannot be read, is not YAML, has a key twice in one section, or holds no sections.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a readable YAML file: {_one_line(error)}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a recipe: it holds no sections")
    _name_task(values)
    return values


def _name_task(values: dict[str, Any]) -> None:
    """Accept ``data.source``, the earlier name of ``task``."""
    if isinstance(values.get("data"), dict) and "source" in values["data"]:
        values["data"] = dict(values["data"])
        values["task"] = values["data"].pop("source")


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one value: ``apply_override(sections, "grpo.learning_rate=1e-5")``; the value is read as YAML.

    Raises:
        UserError: not of the form section.key=value, a section that is a single value, or a value that is not YAML.
    """
    key, equals, text = override.partition("=")
    sections = key.strip().split(".")
    if not equals or not all(sections):
        raise InputError(f"--set takes section.key=value, not {override!r}")
    everything = values
    for section in sections[:-1]:
        if not isinstance(values.get(section) or {}, dict):
            raise InputError(f"--set {override}: {section} is a single value, not a section")
        values[section] = dict(values.get(section) or {})
        values = values[section]
    try:
        values[sections[-1]] = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override}: {text!r} is not a YAML value ({_one_line(error)})") from None
    _name_task(everything)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
