"""Plug-ins: a kind is a file name, its settings are the fields of one frozen dataclass.

`lookup("rules", "srdiffusion")` imports `srbench.rules.srdiffusion` and returns the
class decorated there with `plugin`; kinds that are not ours are looked up among the classes
of files that `load` was given, then among the entry points of installed packages (group
`srbench.rules`).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from srbench.errors import UserError, UserErrors, did_you_mean

GROUPS = ("rules", "families", "accelerators", "metrics", "suites", "engines")
STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def plugin(cls: type[T]) -> type[T]:
    """Make a class a plug-in: frozen, keyword-only, its fields checked on construction.

    The kind is the last part of the module's name, the group the one before: the folder of
    srbench.  A class in a file of one's own names its group itself, as in
    `@plugin_of("accelerators")`.
    """
    return _make(cls, None)


def plugin_of(group: str) -> Callable[[type[T]], type[T]]:
    """`plugin` for a class outside srbench's folders; group: one of GROUPS.

    >>> @plugin_of("rules")
    ... class Never:
    ...     def fires(self, trace, entered):
    ...         return False
    >>> Never()
    Never()
    """
    if group not in GROUPS:
        raise UserError(f"plugin_of({group!r})", "a group of plug-ins", did_you_mean(group, GROUPS))
    return lambda cls: _make(cls, group)


def _make(cls: type[T], group: str | None) -> type[T]:
    made: Any = dataclass(frozen=True, kw_only=True, config=STRICT)(cls)
    made.kind, made.group = cls.__module__.rpartition(".")[2], group
    return made


# -- plug-ins of one's own

_FILES = "srbench_plugins"
_sources: dict[str, str] = {}  # module → sha256 of its file


def load(files: Sequence[str | Path]) -> None:
    """Make the plug-ins of Python files known; a kind is a file's name.

    Raises UserError for a file that is missing, does not run, or has no plug-in in it.
    """
    for path in map(Path, files):
        name = f"{_FILES}.{path.stem}"
        try:
            source = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"plugins: {path} ({error.strerror})", "a readable Python file", "check the path"
            ) from None
        digest = hashlib.sha256(source).hexdigest()
        if _sources.get(name) == digest:
            continue
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # pydantic and pickle look a class's module up by name
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise UserError(
                f"plugins: {path} ({type(error).__name__}: {error})", "a file that runs", "mend it"
            ) from error
        if not _classes(module):
            raise UserError(
                f"plugins: {path}",
                "a class decorated with @plugin_of(GROUP)",
                f"from srbench.registry import plugin_of; GROUP: one of {', '.join(GROUPS)}",
            )
        _sources[name] = digest


def _classes(module: types.ModuleType) -> list[type[Any]]:
    """The plug-ins that a module defines."""
    return [
        v
        for v in vars(module).values()
        if isinstance(v, type) and v.__module__ == module.__name__ and "kind" in vars(v)
    ]


def _loaded(group: str) -> dict[str, type[Any]]:
    """The plug-ins of a group from files, by kind."""
    classes = [c for name in _sources for c in _classes(sys.modules[name])]
    return {c.kind: c for c in classes if c.group == group}


def source(cls: type[Any]) -> str | None:
    """What names the code of a plug-in that is not ours: its file's hash, or its package and version."""
    if cls.__module__.startswith("srbench."):
        return None
    if cls.__module__ in _sources:
        return _sources[cls.__module__][:16]
    package = cls.__module__.partition(".")[0]
    names = importlib.metadata.packages_distributions().get(package, [])
    return ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names) or None


def known(group: str) -> list[str]:
    """The kinds of a group: ours, those of files, then those of installed packages."""
    return [*_ours(group), *_loaded(group), *_entry_points(group)]


def _ours(group: str) -> list[str]:
    package = importlib.import_module(f"srbench.{group}")
    names = (m.name for m in pkgutil.iter_modules(package.__path__))
    return [n for n in names if n != "base" and not n.startswith("_")]


@functools.cache  # every look reads the whole environment
def _entry_points(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    return {e.name: e for e in importlib.metadata.entry_points(group=f"srbench.{group}")}


def lookup(group: str, kind: str, where: str | None = None) -> type[Any]:
    """The plug-in class of a kind, asked for at `where`.  Raises UserError with the nearest names."""
    if kind in _ours(group):  # ours come first
        module = importlib.import_module(f"srbench.{group}.{kind}")
        if not (found := _classes(module)):
            raise TypeError(f"{module.__name__} has no class decorated with @plugin")
        return found[0]
    if kind in _loaded(group):
        return _loaded(group)[kind]
    if kind in _entry_points(group):
        return _entry_points(group)[kind].load()
    raise UserError(
        f"{where or group}.kind = {kind!r}",
        f"one of the {group} that srbench knows",
        did_you_mean(kind, known(group)),
    )


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
        code = source(type(value)) if kind else None
        return ({"kind": kind} if kind else {}) | ({"source": code} if code else {}) | plain
    if isinstance(value, (list, tuple)):
        return [identity(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): identity(v) for k, v in value.items()}
    return value
