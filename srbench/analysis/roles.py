"""What a method is in the comparison, read off its resolved path, and the order of rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, get_args

Role = Literal["reference", "small", "fewer", "fixed", "adaptive", "other", "scale"]
Path = Sequence[Mapping[str, Any]]
FIXED = {"fixed_step", "boundary"}


def role(
    is_reference: bool,
    path: Path,
    steps: int | None,
    scale: bool = False,
    own_sampler: bool = False,
    family: Mapping[str, Any] = MappingProxyType({}),
) -> Role:
    """Return what a method is: the reference, a usual rival, a kind of switch, another, or a scale row.

    The usual rivals are the small model, and the large model with fewer steps than the family's,
    both as the family has them: a method with weights, a sampler, a precision, guidance or
    accelerators that differ is another one.

    Args:
        is_reference: Whether similarity is measured against the method.
        path: The segments as the run's record holds them.
        steps: The method's number of steps; None where it is the family's.
        scale: Whether the method's row is a scale row.
        own_sampler: Whether the method has a sampler that is not the family's.
        family: The family's settings as the run's record holds them; without its steps, any
            number of steps counts as fewer.

    >>> role(False, [{"denoiser": {"model": "small"}}], None)
    'small'
    >>> role(False, [{"denoiser": {"model": "large"}}], 100, family={"steps": 50})
    'other'
    >>> role(False, [{"until": {"kind": "srdiffusion"}}, {}], None)
    'adaptive'
    """
    if is_reference or scale:
        return "reference" if is_reference else "scale"
    denoisers = [segment.get("denoiser") or {} for segment in path]
    if own_sampler or any(d.get("weights") for d in denoisers):
        return "other"
    if len(path) == 1:
        return _alone(denoisers[0], steps, family)
    kinds = {(segment.get("until") or {}).get("kind") for segment in path[:-1]}
    models = [d.get("model") for d in denoisers]
    if len(path) == 2 and kinds <= FIXED and models == ["large", "small"]:
        return "fixed"
    return "adaptive" if kinds - {*FIXED, "always", None} else "other"


def _alone(denoiser: Mapping[str, Any], steps: int | None, family: Mapping[str, Any]) -> Role:
    """The role of one denoiser for all steps."""
    settings = {name: value for name, value in denoiser.items() if name != "model"}
    if any(_is_set(value) and value != family.get(name) for name, value in settings.items()):
        return "other"
    usual = family.get("steps")
    if denoiser.get("model") == "small":
        return "small" if steps in (None, usual) else "other"
    return "fewer" if steps is not None and (usual is None or steps < usual) else "other"


def _is_set(value: Any) -> bool:
    """Whether a denoiser has a setting; 0 is one, as of guidance."""
    return not (value is None or value is False or value in ([], ()))


def order(role: Role, path: Path, steps: int | None, label: str) -> tuple[Any, ...]:
    """A key to sort rows by: role, then method family, then δ, k and thresholds as numbers.

    A method family is all methods whose paths differ in numbers alone; those that add
    accelerators come after the plain ones.

    >>> def srd(delta): return [{"until": {"kind": "srdiffusion", "delta": delta}}, {}]
    >>> order("adaptive", srd(0.002), None, "b") < order("adaptive", srd(0.01), None, "a")
    True
    """
    words, numbers = _parts(list(path))
    accelerated = sum(len((s.get("denoiser") or {}).get("accelerators") or ()) for s in path)
    return (
        get_args(Role).index(role),
        (len(path), accelerated),
        words,
        [steps or 0, *numbers],
        natural(label),
    )


def natural(text: str) -> list[tuple[int, float, str]]:
    """A key that sorts numbers inside words by value.

    >>> sorted(["k 10", "k 9"], key=natural)
    ['k 9', 'k 10']
    """
    parts = re.split(r"(\d+(?:\.\d+)?)", text.casefold())
    return [(1, float(p), "") if i % 2 else (0, 0.0, p) for i, p in enumerate(parts)]


def _parts(value: Any) -> tuple[list[str], list[float]]:
    """The names and words inside a path, and its numbers, each in order."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return ["#"], [float(value)]
    if isinstance(value, Mapping):
        return _joined([part for name, inner in value.items() for part in (str(name), inner)])
    if isinstance(value, (list, tuple)):
        return _joined(value)
    return [str(value)], []


def _joined(values: Sequence[Any]) -> tuple[list[str], list[float]]:
    words: list[str] = []
    numbers: list[float] = []
    for value in values:
        inner = ([value], []) if isinstance(value, str) else _parts(value)
        words += inner[0]
        numbers += inner[1]
    return words, numbers
