"""What changed between two runs: the fields that their records disagree on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from srbench.analysis.paired import Bench
from srbench.analysis.quantities import Contender
from srbench.report import legend


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


def changes(a: Bench, b: Bench, pairs: Sequence[tuple[Contender, Contender]] = ()) -> list[Change]:
    """Field by field, the protocol's first; what both share is not listed.

    Of metrics those that both have: a number that one run alone has stands beside none.
    pairs: methods that are compared, of a and of b; of one that is another path in b, what differs.
    """
    metrics = a.facts.keys() & b.facts.keys()
    found = [
        Change(field, x, y, _kind(field, x is None or y is None))
        for field, (x, y) in _both(dict(_fields(a, metrics)), dict(_fields(b, metrics))).items()
        if x != y
    ]
    if a.run.protocol != b.run.protocol and not any(
        c.kind == "protocol" and c.field != "protocol" for c in found
    ):
        found.append(
            Change("weights, or srbench's own version of its bits", "not in the record", None, "protocol")
        )
    for x, y in pairs:
        own, its = (dict(_method(of, m)) for of, m in ((a, x), (b, y)))
        found += [
            Change(field, *both, "other") for field, both in _both(own, its).items() if len({*both}) > 1
        ]
    return sorted(found, key=lambda c: ("protocol", "time", "other").index(c.kind))


def _both(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    return {field: (a.get(field), b.get(field)) for field in dict.fromkeys([*a, *b])}


def _kind(field: str, one_sided: bool = False) -> Literal["protocol", "time", "other"]:
    """Return what a field's difference means; one_sided: only one of the records has the field.

    A package that only one record names is one that only some methods or metrics need; records
    from before weights were kept name none.
    """
    root, _, rest = field.partition(".")
    if root in ("packages", "weights") and one_sided:
        return "other"
    if root in ("protocol", "family", "weights", "packages", "metric", "source", "threads"):
        return "other" if root == "family" and rest.partition(".")[0] in _NO_BITS else "protocol"
    if field == "suite.extended" or field.startswith("suite.seeding"):
        return "protocol"
    return "time" if root in ("device", "timing", "engine") else "other"


def _fields(of: Bench, metrics: Collection[str]) -> Iterator[tuple[str, str]]:
    run = of.run
    yield "protocol", ", ".join(_protocols(of)) or run.protocol
    for name in ("source", "device", "threads", "timing", "warnings"):
        yield name, _words(getattr(run, name))
    yield "commit", legend.code_names(of.run, of.cells)
    yield from _flat("weights", run.weights) if run.weights else ()
    yield from _flat("packages", legend.versions(run, of.cells))
    for part in ("family", "suite", "engine"):
        yield from _flat(part, run.resolved.get(part) or {})
    for name in (n for n in of.facts if n in metrics):
        yield from _flat(f"metric.{name}", of.facts[name].model_dump(exclude={"name"}))


def _method(of: Bench, method: Contender) -> Iterator[tuple[str, str]]:
    """A method's path, steps and sampler, as the run was asked for it."""
    for asked in (m for m in of.run.methods if m.id == method.method_id):
        plain = {"path": asked.path, "steps": asked.steps, "sampler": asked.sampler}
        yield from _flat(f"method {method.label}", plain)


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
