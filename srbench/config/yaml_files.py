"""The YAML files of `conf/`, for commands that do without Hydra."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from srbench.errors import UserError, did_you_mean

_HERE = Path(__file__).parents[1]
# beside the package in a checkout, inside it once installed
FOLDER = next((p for p in (_HERE / "conf", _HERE.parent / "conf") if p.is_dir()), _HERE / "conf")


def names(group: str) -> list[str]:
    """The YAML files of a group, as `conf/family/NAME.yaml`."""
    return sorted(p.stem for p in (FOLDER / group).glob("*.yaml"))


def read(group: str, name: str) -> dict[str, Any]:
    """One YAML as plain data, its interpolations as they stand.

    Raises UserError with the nearest names where there is none.
    """
    if name not in names(group):
        raise UserError(
            f"{group} {name!r}", f"a file conf/{group}/NAME.yaml", did_you_mean(name, names(group))
        )
    return yaml.safe_load((FOLDER / group / f"{name}.yaml").read_text("utf-8")) or {}


def parse(text: str, where: str) -> dict[str, Any]:
    """A mapping written as YAML on a command line.

    Raises UserError for anything else.

    >>> parse("{threshold: 0.1}", "--settings")
    {'threshold': 0.1}
    """
    try:
        plain = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UserError(f"{where} {text!r} ({error})", "YAML", "as in '{threshold: 0.1}'") from None
    if not isinstance(plain, dict):
        raise UserError(f"{where} {text!r}", "keys with values", "as in '{threshold: 0.1}'")
    return plain
