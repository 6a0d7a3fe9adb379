"""What changed between two runs: the fields that their records disagree on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from srbench.report.paired import Bench


@dataclass(frozen=True)
class Change:
    """A field that the two runs' records disagree on; None where one lacks it.

    kind: `protocol` where numbers of the two can't stand in one column, `time` where only
    times can't, `other` for the rest.
    """

    field: str
    a: str | None
    b: str | None
    kind: Literal["protocol", "time", "other"]


# Of a family's settings, those that no bit of a video depends on, or that another field tells.
_NO_BITS = ("name", "price", "device", "residency", "memory")


def changes(a: Bench, b: Bench) -> list[Change]:
    """Field by field, the protocol's first; what both share is not listed.

    Of metrics those that both have: a number that one run alone has stands beside none.
    """
    metrics = a.facts.keys() & b.facts.keys()
    found = [
        Change(field, x, y, _kind(field))
        for field, (x, y) in _both(dict(_fields(a, metrics)), dict(_fields(b, metrics))).items()
        if x != y
    ]
    if a.run.protocol != b.run.protocol and not any(c.kind == "protocol" for c in found[1:]):
        found.append(
            Change("weights, or srbench's own version of its bits", "not in the record", None, "protocol")
        )
    return sorted(found, key=lambda c: ("protocol", "time", "other").index(c.kind))


def _both(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    return {field: (a.get(field), b.get(field)) for field in dict.fromkeys([*a, *b])}


def _kind(field: str) -> Literal["protocol", "time", "other"]:
    root, _, rest = field.partition(".")
    if root in ("protocol", "family", "packages", "metric", "source", "threads"):
        return "other" if root == "family" and rest.partition(".")[0] in _NO_BITS else "protocol"
    if field == "suite.extended":
        return "protocol"
    return "time" if root in ("device", "timing", "engine") else "other"


def _fields(of: Bench, metrics: Collection[str]) -> Iterator[tuple[str, str]]:
    run = of.run
    yield "protocol", ", ".join(_protocols(of)) or run.protocol
    for name in ("source", "device", "threads", "timing", "commit", "dirty", "warnings"):
        yield name, _words(getattr(run, name))
    yield from _flat("packages", run.packages)
    for part in ("family", "suite", "engine"):
        yield from _flat(part, run.resolved.get(part) or {})
    for name in (n for n in of.facts if n in metrics):
        yield from _flat(f"metric.{name}", of.facts[name].model_dump(exclude={"name"}))


def _protocols(of: Bench) -> list[str]:
    """Those of the cells that compete."""
    return sorted({c.protocol for m in of.methods if m.role != "scale" for c in m.cells.values()})


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """`family.large.source` and its words, for every leaf."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, (list, tuple)) and any(isinstance(v, Mapping) for v in value):
        for i, inner in enumerate(value):
            yield from _flat(f"{name}.{i}", inner)
    else:
        yield name, _words(value)


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_words, value)) or "none"
    return "none" if value is None or value == {} else str(value)
