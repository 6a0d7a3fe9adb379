"""Plug-ins: a kind is a file name, its settings are the fields of one frozen dataclass.

`lookup("rules", "srdiffusion")` imports `srbench.rules.srdiffusion` and returns the
class decorated there with `plugin`; kinds that are not ours are looked up among the classes
of files that `load` was given, then among the entry points of installed packages (group
`srbench.rules`).
"""

from __future__ import annotations

import ast
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
# defaults are validated, so that one of 100 for a float is 100.0, as if it were given: one name
STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, validate_default=True)

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
_sources: dict[str, Source] = {}  # by the name of its module


@dataclasses.dataclass(frozen=True)
class Source:
    """A plug-in file as it was read, so that another process gets the same code.

    path: where it was, for messages and tracebacks.  imports: what names the code of modules that
    it imports and that nobody installed, as those beside it; see `own_imports`.
    """

    path: str
    content: bytes
    imports: str = ""

    @property
    def digest(self) -> str:
        """sha256 of the content and of what it imports, hex."""
        return hashlib.sha256(self.content + self.imports.encode()).hexdigest()


def load(files: Sequence[str | Path]) -> None:
    """Make the plug-ins of Python files known; a kind is a file's name.

    Raises UserError for a file that is missing, does not run, or has no plug-in of its own in
    it, and for two files of one name.
    """
    names: dict[str, Path] = {}
    for path in map(Path, files):
        if path.suffix != ".py" or not path.stem.isidentifier():
            raise UserError(f"plugins: {path}", "a file NAME.py, its name letters, digits and _", "rename it")
        if names.setdefault(path.stem, path).resolve() != path.resolve():
            raise UserError(
                f"plugins: {names[path.stem]} and {path}", "a name of its own for each", "rename one"
            )
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"plugins: {path} ({error.strerror})", "a readable Python file", "check the path"
            ) from None
        load_source(Source(str(path.absolute()), content, _told(own_imports(content))))


def load_source(source: Source) -> None:
    """Make the plug-ins of a file known that was read before, here or in another process.

    Raises UserError as `load` does, and where what the file imports is other code here than
    in the process that read it.
    """
    name = f"{_FILES}.{Path(source.path).stem}"
    earlier = _sources.get(name)
    if earlier is not None and earlier == dataclasses.replace(source, path=earlier.path):
        return
    imported = own_imports(source.content)
    if _told(imported) != source.imports:
        raise UserError(
            f"plugins: {source.path}, which imports {', '.join(imported) or 'a module that is not here'}",
            "the same code in every process",
            "put what it imports into the file, or install it",
        )
    if earlier is not None and earlier.imports != source.imports:
        for stale in [m for m in sys.modules if m.partition(".")[0] in imported]:
            del sys.modules[stale]  # else the file would get what it imported before
    sys.modules.setdefault(_FILES, types.ModuleType(_FILES))
    module = types.ModuleType(name)
    module.__file__ = source.path
    before = sys.modules.get(name)
    sys.modules[name] = module  # pydantic and pickle look a class's module up by name
    try:
        _execute(source, module)
        _refuse_unfit(source.path, module)
    except UserError:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise
    _sources[name] = source


def own_imports(content: bytes) -> dict[str, str]:
    """Top-level modules that code imports and that nobody installed: name → hash of their Python files.

    Those that they import in turn too.  srbench's own version is in every key.
    """
    found: dict[str, str] = {}
    waiting = _imported(content)
    while waiting:
        name = waiting.pop()
        files = [] if name in found else _own_files(name)
        if files:
            found[name] = _hash(files)
            waiting |= {n for f in files for n in _imported(f.read_bytes())}
    return dict(sorted(found.items()))


def _told(imports: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {code}" for name, code in imports.items())


def _imported(content: bytes) -> set[str]:
    """Top-level names in import statements, those inside functions included."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError):  # told where it is executed
        return set()
    plain = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    parts = {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level}
    return {name.partition(".")[0] for name in plain | parts} - {"srbench"} - sys.stdlib_module_names


def _own_files(name: str) -> list[Path]:
    """The Python files of a top-level module or package; none where it is missing or installed."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return []
    if spec is None:
        return []
    origin = spec.origin if spec.has_location else None
    folders = [Path(f) for f in spec.submodule_search_locations or ()]
    if {"site-packages", "dist-packages"} & {p for f in (*folders, Path(origin or "")) for p in f.parts}:
        return []
    if folders:
        return [f for folder in folders for f in sorted(folder.rglob("*.py"))]
    return [Path(origin)] if origin and origin.endswith(".py") else []


def _hash(files: Sequence[Path]) -> str:
    return hashlib.sha256(b"".join(f.read_bytes() for f in files if f.is_file())).hexdigest()[:16]


def _execute(source: Source, module: types.ModuleType) -> None:
    try:
        exec(compile(source.content, source.path, "exec", dont_inherit=True), vars(module))
    except Exception as error:
        raise UserError(
            f"plugins: {source.path} ({type(error).__name__}: {error})", "a file that runs", "mend it"
        ) from error


def _refuse_unfit(path: str, module: types.ModuleType) -> None:
    """Raise UserError where what a file brings could never be reached."""
    found = _classes(module)
    if not found:
        raise UserError(
            f"plugins: {path}",
            "a class decorated with @plugin_of(GROUP)",
            f"from srbench.config.registry import plugin_of; GROUP: one of {', '.join(GROUPS)}",
        )
    groups = [c.group for c in found]
    for cls in found:
        if cls.group is None:
            raise UserError(f"plugins: {path}, class {cls.__name__}", "@plugin_of(GROUP)", "name its group")
        if groups.count(cls.group) > 1:
            raise UserError(
                f"plugins: {path} has {groups.count(cls.group)} of {cls.group}",
                "one of a group in a file, for its name is the kind",
                "give each a file",
            )
        if cls.kind in _ours(cls.group):
            raise UserError(
                f"plugins: {path}", f"a name that srbench's own {cls.group} do not have", "rename it"
            )


def sources() -> tuple[Source, ...]:
    """Every plug-in file that was loaded here."""
    return tuple(_sources.values())


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
    """What names the code of a plug-in that is not ours, so that edited code is other code.

    A file's hash; of an installed package its name, version and the hash of its Python files.
    """
    if cls.__module__.startswith("srbench."):
        return None
    if cls.__module__ in _sources:
        return _sources[cls.__module__].digest[:16]
    return _package_source(cls.__module__)


@functools.cache
def _package_source(module: str) -> str | None:
    names = importlib.metadata.packages_distributions().get(module.partition(".")[0], [])
    told = [f"{n} {importlib.metadata.version(n)}" for n in names]
    # a version is not enough: an editable install changes under the same one
    return ", ".join([*told, _hash(_package_files(module))])


def _package_files(module: str) -> list[Path]:
    """The Python files of the outermost package that has an `__init__.py`.

    In namespace packages without one: all in the folder of the module's file.
    """
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        file = Path(getattr(sys.modules.get(".".join(parts[:depth])), "__file__", None) or "")
        if file.name == "__init__.py" or (file.name and depth > 1):
            return sorted(file.parent.rglob("*.py"))
        if file.name:
            return [file]
    return []


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


def _installed(group: str, kind: str) -> type[Any]:
    """The class of an installed package's entry point.  Raises UserError where it is none of this kind."""
    point = _entry_points(group)[kind]
    place = f"entry point {kind} = {point.value} of srbench.{group}"
    try:
        cls = point.load()
    except Exception as error:  # of all kinds: it is another's code
        raise UserError(
            f"{place} ({type(error).__name__}: {error})", "one that imports", "mend or remove the package"
        ) from error
    if (getattr(cls, "group", None), getattr(cls, "kind", None)) != (group, kind):
        raise UserError(
            place,
            f'a class decorated with @plugin_of("{group}") in a module {kind}.py',
            "name the entry point after the module",
        )
    return cls


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
        return _installed(group, kind)
    raise UserError(
        f"{where or group}.kind = {kind!r}",
        f"one of the {group} that srbench knows",
        f"{did_you_mean(kind, known(group))}; to load one from a file, add 'plugins=[NAME.py]'",
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
            got = f"{place} = {e['input']!r}"
            if e["type"].startswith("missing"):
                got, expected = f"{place} is missing", "a value"
            if mistakes and mistakes[-1].got == got:  # the next branch of the same union
                expected = f"{mistakes.pop().expected}, or {expected}"
            mistakes.append(UserError(got, expected, f"change {place}"))
    return mistakes


def _is_place(part: int | str) -> bool:
    """Whether a part of pydantic's location is a user's key, not a branch of a union."""
    return isinstance(part, int) or (part.isidentifier() and part not in ("int", "float", "str"))


def _unset(field: dataclasses.Field[Any], value: Any) -> bool:
    return bool(field.metadata.get("if_set")) and getattr(value, field.name) is None


def identity(value: Any, *, in_keys: bool = False) -> Any:
    """A plug-in, or any frozen dataclass, as plain data that names it wholly.

    The same settings give the same identity; it is what keys and records hold.  A field
    whose metadata say `if_set` is no part of it while it is None, so that it could be added
    without naming anything anew.
    in_keys: for keys, a dataclass that has a `named_by` is what that says, as weights are their
    bytes and not their place; a record holds the settings themselves.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if in_keys and hasattr(value, "named_by"):
            return identity(value.named_by(), in_keys=True)
        own = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if not _unset(f, value)}
        plain = {name: identity(v, in_keys=in_keys) for name, v in own.items()}
        kind = getattr(value, "kind", None)
        code = source(type(value)) if kind else None
        return ({"kind": kind} if kind else {}) | ({"source": code} if code else {}) | plain
    if isinstance(value, (list, tuple)):
        return [identity(v, in_keys=in_keys) for v in value]
    if isinstance(value, Mapping):
        return {str(k): identity(v, in_keys=in_keys) for k, v in value.items()}
    return value
