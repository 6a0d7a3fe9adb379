"""Plug-ins: a kind is a file name, its settings are the fields of one frozen dataclass.

`lookup("rules", "srdiffusion")` imports `srbench.rules.srdiffusion` and returns the
class decorated there with `plugin`; kinds that are not ours are looked up among the
entry points of installed packages (group `srbench.rules`).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import pkgutil
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from srbench.errors import UserError, UserErrors, did_you_mean

GROUPS = ("rules", "families", "accelerators", "metrics", "suites", "engines")
STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)

T = TypeVar("T")


def plugin(cls: type[T]) -> type[T]:
    """Make a class a plug-in: frozen, keyword-only, its fields checked on construction.

    The kind is the last part of the module's name.
    """
    made: Any = dataclass(frozen=True, kw_only=True, config=STRICT)(cls)
    made.kind = cls.__module__.rpartition(".")[2]
    return made


def known(group: str) -> list[str]:
    """The kinds of a group: ours, then those of installed packages."""
    package = importlib.import_module(f"srbench.{group}")
    ours = [
        m.name
        for m in pkgutil.iter_modules(package.__path__)
        if m.name != "base" and not m.name.startswith("_")
    ]
    return ours + list(_installed(group))


@functools.cache
def _installed(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """Kinds of other packages.  Looked up once: every look reads the whole environment."""
    return {e.name: e for e in importlib.metadata.entry_points(group=f"srbench.{group}")}


def lookup(group: str, kind: str, where: str | None = None) -> type[Any]:
    """The plug-in class of a kind, asked for at `where`.  Raises UserError with the nearest names."""
    if kind not in known(group):
        raise UserError(
            f"{where or group}.kind = {kind!r}",
            f"one of the {group} that srbench knows",
            did_you_mean(kind, known(group)),
        )
    if importlib.util.find_spec(f"srbench.{group}.{kind}") is None:  # ours come first
        return _installed(group)[kind].load()
    module = importlib.import_module(f"srbench.{group}.{kind}")
    for value in vars(module).values():
        if isinstance(value, type) and value.__module__ == module.__name__ and "kind" in vars(value):
            return value
    raise TypeError(f"{module.__name__} has no class decorated with @plugin")


def build(group: str, settings: Mapping[str, Any], where: str) -> Any:
    """Make a plug-in from its YAML (`kind` and its fields).

    `where` is the dotted place of the settings, for messages.  Raises UserErrors with
    every mistake in them at once.
    """
    if not isinstance(settings, Mapping):
        raise UserError(
            f"{where} = {settings!r}", "a mapping with a kind", f"as in {{kind: {known(group)[0]}}}"
        )
    fields = dict(settings)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str):
        raise UserError(
            f"{where} without a kind", "kind: one of " + ", ".join(known(group)), f"set {where}.kind"
        )
    cls = lookup(group, kind, where)
    names = [f.name for f in dataclasses.fields(cls)]
    try:
        return TypeAdapter(cls).validate_python(fields)
    except ValidationError as error:
        raise UserErrors(explain(error, where, names)) from None


def explain(error: ValidationError, where: str, names: list[str]) -> list[UserError]:
    """Pydantic's findings as ours: one UserError each, with the dotted place."""
    mistakes = []
    for e in error.errors():
        place = ".".join([*([where] if where else []), *(str(p) for p in e["loc"] if _is_place(p))])
        if e["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            mistakes.append(
                UserError(f"key {place}", "a key of this setting", did_you_mean(str(e["loc"][-1]), names))
            )
        else:
            expected = e["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            got = f"{place} is missing" if e["type"].startswith("missing") else f"{place} = {e['input']!r}"
            if mistakes and mistakes[-1].got == got:  # the next branch of the same union
                expected = f"{mistakes.pop().expected}, or {expected}"
            mistakes.append(UserError(got, expected, f"change {place}"))
    return mistakes


def _is_place(part: int | str) -> bool:
    """Whether a part of pydantic's location is a user's key, not a branch of a union."""
    return isinstance(part, int) or (part.isidentifier() and part not in ("int", "float", "str"))


def identity(value: Any) -> Any:
    """A plug-in, or any frozen dataclass, as plain data that names it wholly.

    The same settings give the same identity; it is what keys and records hold.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: identity(getattr(value, f.name)) for f in dataclasses.fields(value)}
        kind = getattr(value, "kind", None)
        return ({"kind": kind} if kind else {}) | plain
    if isinstance(value, (list, tuple)):
        return [identity(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): identity(v) for k, v in value.items()}
    return value
