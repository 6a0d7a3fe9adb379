"""A command line as Hydra reads it: plain data, or its refusals told as ours."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from srbench.config import registry, words, yaml_files
from srbench.config.experiment import METHOD_KEYS
from srbench.config.places import typed
from srbench.errors import Mistakes, UserError, did_you_mean

Settle = Callable[[Mapping[str, Any], Mapping[str, str]], object]
SEVERAL = ("method", "metric")  # groups of which a list is chosen


def compose(cfg: DictConfig) -> dict[str, Any]:
    """Hydra's configuration as plain data.

    Raises UserErrors where values are missing or cannot be resolved, or parameters unused.
    """
    mistakes = Mistakes()
    for key in sorted(OmegaConf.missing_keys(cfg)):
        mistakes.note(f"{key} is missing", "a value", f"set {key}=… on the command line")
    _note_unused(OmegaConf.to_container(cfg, resolve=False), mistakes)
    mistakes.stop_if_any()
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        key = getattr(error, "full_key", None) or "the configuration"
        raise UserError(f"{key}: {first}", "a value", f"set {key}=… on the command line") from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def typed_places(cfg: DictConfig) -> dict[str, str]:
    """Where a user typed what resolved settings say."""
    return typed(OmegaConf.to_container(cfg, resolve=False))


def _note_unused(unresolved: Any, mistakes: Mistakes) -> None:
    """A method's parameter that nothing in the method mentions is a slip of the pen."""
    methods = unresolved.get("method")
    for name, method in methods.items() if isinstance(methods, dict) else ():
        if not isinstance(method, dict):
            continue
        parameters = [k for k in method if k not in METHOD_KEYS]
        for key in parameters:
            if f".{key}}}" not in str(method):
                others = [k for k in method if k != key]
                mistakes.note(
                    f"method.{name}.{key}",
                    "a key that its path uses",
                    did_you_mean(str(key), {*map(str, others), *METHOD_KEYS}),
                )


# -- Hydra's own refusals

_VALUE_OPTIONS = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--info", "-i")


def overrides(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The command line's overrides, its options with their values, and the folders of `--config-dir`.

    >>> overrides(["-m", "+experiment=x", "--config-dir", "mine", "--config-dir=b", "a=1"])
    (['+experiment=x', 'a=1'], ['-m', '--config-dir', 'mine', '--config-dir=b'], ['mine', 'b'])
    """
    found: list[str] = []
    options: list[str] = []
    folders: list[str] = []
    rest = iter(arguments)
    for word in rest:
        name, has_value, value = word.partition("=")
        if not word.startswith("-"):
            found.append(word)
            continue
        options.append(word)
        if name in _VALUE_OPTIONS:
            if not has_value and (value := next(rest, "")):
                options.append(value)
            folders += [value] if name in ("--config-dir", "-cd") else []
    return found, options, folders


def values(word: str, multirun: bool) -> list[str]:
    """An override as Hydra reads it, once for each value that it sweeps over.

    Raises UserError where it cannot be read, and for a sweep without -m.
    """
    if os.path.isfile(os.path.join(word, "run.json")):
        report = f"srbench report {shlex.quote(word)}"
        raise UserError(f"{word!r}, the folder of a run", "key=value", f"for its report write: {report}")
    override = words.as_typed(word, multirun)
    try:
        parsed = OverridesParser.create().parse_override(override)
        is_sweep = parsed.is_sweep_override()
        found = (
            [f"{override.partition('=')[0]}={v}" for v in parsed.sweep_string_iterator()] if is_sweep else []
        )
    except Exception:  # of all kinds, as below
        raise UserError(f"{word!r}", "key=value, brackets closed", _readable(word)) from None
    if is_sweep and not multirun:
        key, _, several = word.partition("=")
        raise UserError(
            f"{word}, which are several values",
            "one value, or -m for a run with each of them",
            f"add -m; a list is written {shlex.quote(f'{key}=[{several}]')}",
        )
    return found if is_sweep else [override]


def _readable(override: str) -> str:
    """What to write in the place of an override that Hydra cannot read."""
    key, has_value, value = override.partition("=")
    if not has_value or not key.isascii():
        return "write key=value; a key of letters, digits and dots"
    if value[:1] in tuple("[{"):
        return "close what is open, and quote what is not plain: 'method=[large,small]'"
    return f"write {shlex.quote(f'{key}={words.in_quotes(value)}')}"


def checked(arguments: Sequence[str], settle: Settle) -> list[str]:
    """A command line as Hydra can read it.

    Hydra wants overrides before options, texts between quotes, and `++` before a key that a
    setting may have but its YAML does not.
    Raises UserErrors for all that is wrong with it, before its first job begins.  One that composes
    and sweeps over nothing is left to its job, which checks the rest.
    settle: what raises a job's other mistakes, of its plain data and `typed_places`.
    """
    typed, options, folders = overrides(arguments)
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(f"--config-dir {folder}", "a folder that is there", "check the path")
    places = ",".join(words.in_quotes(f"file://{Path(folder).resolve()}") for folder in folders)
    kept, mistakes = [f"hydra.searchpath=[{places}]"] if folders else [], Mistakes()
    multirun = bool({"-m", "--multirun"} & set(options))
    read = [mistakes.attempt(lambda w=w: values(w, multirun)) for w in typed]  # type: ignore[misc]
    order = sorted((i for i, c in enumerate(read) if c), key=lambda i: _turn(read[i][0]))  # type: ignore[index]
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        for i in order:
            first, *others = read[i] or []
            if (accepted := _accept(kept, first, mistakes)) is not None:
                kept = [*kept, accepted]
                read[i] = [accepted, *(_with_prefix(accepted, o) for o in others)]
        swept = [[*kept, v] for c in read if c for v in c[1:]]
        for job in [kept, *swept] if mistakes.found or swept else []:
            _note_job(job, settle, mistakes)
    mistakes.found = list({str(m): m for m in mistakes.found}.values())
    mistakes.stop_if_any()
    return [*(_joined(choices) for choices in read if choices), *options]


def _with_prefix(accepted: str, override: str) -> str:
    """The override with the `+` signs of another one of its key."""
    plus = accepted[: len(accepted) - len(accepted.lstrip("+"))]
    return f"{plus}{override.lstrip('+')}"


def _joined(choices: Sequence[str]) -> str:
    """The override that sweeps over all values of these.

    >>> _joined(["++a.b=1", "++a.b=2"])
    '++a.b=1,2'
    """
    first, *others = choices
    return ",".join([first, *(o.partition("=")[2] for o in others)])


def _key(override: str) -> str:
    """What an override sets.

    >>> _key("+method@method.fast=srdiffusion"), _key("method.large.steps=20")
    ('method', 'method.large.steps')
    """
    return override.partition("=")[0].lstrip("+~").partition("@")[0]


def _turn(override: str) -> tuple[bool, bool]:
    """Groups first: they bring the keys that others set."""
    return "." in _key(override), not override.startswith("+")


def _note_job(job: list[str], settle: Settle, mistakes: Mistakes) -> None:
    """The mistakes of one job, as far as they do not follow from those found already."""
    own = Mistakes()
    composed = own.attempt(lambda: _compose(job))
    if composed is not None:
        own.attempt(lambda: settle(compose(composed), typed_places(composed)))
    earlier = bool(mistakes.found)
    # a method or value that was refused may be the very one that is missing now
    follow = ("methods ", "no method")
    mistakes.found += [
        m for m in own.found if not earlier or not (m.got.startswith(follow) or m.got.endswith("is missing"))
    ]


def _compose(job: list[str]) -> DictConfig:
    """Hydra's composition.  Raises UserError where it refuses."""
    try:
        return hydra.compose("config", job)
    except MissingConfigException as error:
        group, _, name = (error.missing_cfg_file or "").removesuffix(".yaml").rpartition("/")
        file = f"a file conf/{group}/NAME.yaml, or {group}/NAME.yaml in the folder of --config-dir"
        choices = did_you_mean(name, error.options or yaml_files.names(group))
        raise UserError(f"{group} {name!r}", file, choices) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1} of {mark.name}" if mark else "a file"
        told = ", ".join(part for part in (error.context, error.problem) if part)
        raise UserError(f"{where}: {told}", "YAML", "mend the file at this line, or just above it") from error
    except Exception as error:  # of all kinds: Hydra refuses `method=0` with a ValueError
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(first, "a configuration that composes", "see conf/config.yaml") from error


def _accept(kept: list[str], override: str, mistakes: Mistakes) -> str | None:
    """The override without what does not fit, which is noted; None where nothing is left of it."""
    left: str | None = override
    while left is not None:
        try:
            _compose([*kept, left])
            return left
        except UserError as error:
            if _may_be_added(kept, left):
                left = f"++{left}"
                continue
            if (file := _at_fault(error.__cause__)) is not None:
                mistake, left = error, _without(file, left)
            else:
                mistake, left = _misfit(kept, left, error)
            mistakes.found.append(mistake)
    return None


def _may_be_added(kept: list[str], override: str) -> bool:
    """Whether an override sets what its method, suite, … may have, though its YAML does not name it."""
    group, *inside = _key(override).split(".")
    if override[0] in "+~" or not inside:
        return False
    node = OmegaConf.to_container(_compose(kept), resolve=False)
    for part in [group, *inside[: group in SEVERAL]]:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or len(inside) <= (group in SEVERAL):
        return False
    key = inside[group in SEVERAL]
    return key not in node and key in _settings(group, node.get("kind"))


def _settings(group: str, kind: Any) -> Sequence[str]:
    """The keys that a file of a group may have; none where its kind is unknown."""
    if group == "method":
        return METHOD_KEYS
    plugins = {"family": "families", "suite": "suites", "metric": "metrics", "engine": "engines"}
    try:
        return [f.name for f in dataclasses.fields(registry.lookup(plugins[group], str(kind)))]
    except (UserError, KeyError):
        return ()


def _at_fault(cause: BaseException | None) -> str | None:
    """The name of the file that is missing or no YAML; None where Hydra refuses for another reason."""
    if isinstance(cause, MissingConfigException):
        return Path(cause.missing_cfg_file or "").stem
    if isinstance(cause, yaml.MarkedYAMLError) and (mark := cause.problem_mark or cause.context_mark):
        return Path(mark.name).stem
    return None


def _without(name: str, override: str) -> str | None:
    """A list of a group's files without one of them.

    >>> _without("b", "method=[a,b]"), _without("b", "family=b"), _without("b", "method=[b]")
    ('method=[a]', None, None)
    """
    key, _, listed = override.partition("=")
    if not listed.startswith("["):
        return None
    names = [n for n in listed.strip("[]").split(",") if n.strip(" '\"") != name.removesuffix(".yaml")]
    same = len(names) == len(listed.strip("[]").split(","))
    return f"{key}=[{','.join(names)}]" if names and not same else None


def _misfit(kept: list[str], override: str, error: UserError) -> tuple[UserError, str | None]:
    """The mistake in an override that Hydra refuses for its key or value; and what was meant, if known."""
    node, parts, above = OmegaConf.to_container(_compose(kept), resolve=False), _key(override).split("."), 0
    assert isinstance(node, dict)
    added = [g for g in _options(kept, "") if g not in (*node, "hydra")]
    while above < len(parts) and isinstance(node, dict) and parts[above] in node:
        node, above = node[parts[above]], above + 1
    group, where = parts[0], ".".join(parts[:above])
    if above == len(parts) or not isinstance(node, dict):  # the key, or one above it, has a value of its own
        names = _options(kept, group) if len(parts) == 1 else []
        do = did_you_mean(override.partition("=")[2], names) if names else "see conf/config.yaml"
        return UserError(f"{override} ({error.got})", "an override that composes", do), None
    if len(parts) == 1 and group in added and override[0] not in "+~":
        missing = f"a + before it, for the configuration has no {group} that it could replace"
        return UserError(override, missing, f"write +{override}"), f"+{override}"
    known = list(map(str, node))
    if len(parts) > 1 and (fits := _of_another(kept, parts, above, override, known)):
        return fits, None
    known += [] if above else [f"+{g}" for g in added]
    legal = _settings(group, node.get("kind")) if above == 1 + (group in SEVERAL) else ()
    do = did_you_mean(parts[above], {*known, *legal})
    if above and not legal and above == len(parts) - 1 and override[0] not in "+~":
        do = f"{do}; to add a key that is not there, write +{override}"
    return UserError(override, f"a key of {where or 'the configuration'}", do), None


def _of_another(
    kept: list[str], parts: list[str], above: int, override: str, known: list[str]
) -> UserError | None:
    """Where a setting is that of another file of its group than those that are chosen.

    parts: of its key; above: how many of them are there.  known: what there is in their place.
    """
    group, name, *inside = parts
    names = _options(kept, group)
    if group in SEVERAL and above <= 1 and name in names:
        chosen = ",".join([*(n for n in known if n in names), name])
        return UserError(
            f"{override}, and no {name} in the list {group}=[…]",
            f"a setting of what is in it: {', '.join(known) if above else 'nothing'}",
            f"add it, as '{group}=[{chosen}]', or leave the setting out",
        )
    others = [] if group in SEVERAL or inside else [n for n in names if _fits(kept, group, n, override)]
    if not others:
        return None
    return UserError(
        override,
        f"a key of {group} as it is: {', '.join(sorted(known))}",
        f"set {' or '.join(f'{group}={n}' for n in others)}, which has it",
    )


def _options(kept: list[str], group: str) -> list[str]:
    """The names of a group's files, those of `--config-dir` too; of the groups where it is empty."""
    kind = ObjectType.CONFIG if group else ObjectType.GROUP
    search = [w for w in kept if w.startswith("hydra.searchpath=")]
    return GlobalHydra.instance().config_loader().get_group_options(group, kind, "config", search)


def _fits(kept: list[str], group: str, name: str, override: str) -> bool:
    """Whether Hydra takes an override with another file of its group."""
    try:
        _compose([*kept, f"{group}={name}", override])
    except UserError:
        return False
    return True
