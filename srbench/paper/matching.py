"""Which run stands beside which setting of the paper, which of its methods are the paper's, and
whether a difference to a published number means anything there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from srbench.analysis import totals
from srbench.analysis.table import Run
from srbench.analysis.values import Column, Row, Value
from srbench.paper import published
from srbench.paper.published import Setting
from srbench.store.records import MetricFacts, RunRecord

MP4 = "/x264-"  # in the name of a metric that was taken through a lossy mp4
SIMILARITY = {
    "psnr": "psnr",
    "ssim": "ssim/gauss11-valid",
    "lpips": "lpips/alex-spatial",
}  # what is preferred
WITH_SHAPES = "'metric=[psnr,ssim,lpips,shapes]'"  # the paper's experiments don't ask for that metric
SCORES = ("total", "quality", "semantic")


@dataclass(frozen=True, eq=False)
class Beside:
    """A run beside a setting.

    rows, dimensions: its rows of the two tables by the paper's name of the method.  twice:
    labels of further rows that the paper's names fit as well, and that are not shown.
    unlike: why its numbers are not to be held against the paper's; empty where they are.
    suite: whose totals it has, as `vbench` or `shapes`; empty where nothing scored it.
    """

    run: Run
    setting: Setting
    rows: Mapping[str, Row]
    dimensions: Mapping[str, Row]
    twice: Sequence[str]
    unlike: str
    suite: str

    @property
    def record(self) -> RunRecord:
        return self.run[0]

    @property
    def is_stand_in(self) -> bool:
        """Another family, which fills the paper's tables with numbers about itself."""
        return self.record.family != self.setting.setting

    @property
    def whose(self) -> str:
        """`measured` of the paper's own models; else whose numbers stand in their place."""
        if is_tiny(self.record):
            return "random weights"
        return self.record.family if self.is_stand_in else "measured"

    @property
    def asked_suite(self) -> str:
        """The kind of suite that the run was made for."""
        return str(_suite_settings(self.record).get("kind"))

    def value(self, method: str, column: str) -> Value | None:
        """What this run measured for a published column, in the unit of the paper's tables.

        A dimension is normalised and times its weight, in %, as the paper prints it.  None
        where the run has no such method or no such quantity.
        """
        row = self.rows.get(method)
        if row is None:
            return None
        group, _, name = column.partition("/")
        if group == "vbench" and name not in SCORES:
            return self._dimension(method, name)
        key = f"{self.suite}/{name}" if group == "vbench" else self.key(column)
        return next((v for v in row.values if v.column.key == key), None)

    def key(self, column: str) -> str | None:
        """The run's own name of a published column: of a similarity the one through a lossy mp4.

        The published numbers were, presumably, taken so; then by the definition that the cited
        baselines use.  None where the run has none.
        """
        if column not in SIMILARITY:
            return column
        keys = [v.column.key for row in self.rows.values() for v in row.values]
        of_stem = [k for k in dict.fromkeys(keys) if k.partition("/")[0] == column]
        return min(of_stem, key=lambda k: (MP4 not in k, not k.startswith(SIMILARITY[column])), default=None)

    def _dimension(self, method: str, name: str) -> Value | None:
        row = self.dimensions.get(method)
        key = f"{self.suite}/{name}"
        value = next((v for v in row.values if v.column.key == key), None) if row else None
        return value and _as_printed(value, _facts(self.run, key))


def beside(setting: Setting, run: Run) -> Beside:
    """A run beside a setting, whatever it may be."""
    record, _, tables = run
    found = _matched(setting, record)
    by_id = {row.method_id: row for row in tables.main}
    single = {row.method_id: row for row in tables.dimensions}
    rows = {name: by_id[ids[0]] for name, ids in found.items()}
    twice = [by_id[i].label for ids in found.values() for i in ids[1:]]
    dimensions = {name: single[ids[0]] for name, ids in found.items() if ids[0] in single}
    return Beside(run, setting, rows, dimensions, twice, _unlike(setting, record), _suite(run))


def choose(setting: Setting, methods: Sequence[str], runs: Sequence[Run]) -> list[Beside]:
    """The run that stands beside a setting, and those whose numbers may stand in its columns.

    The setting's own family before its twin with random weights, and that before a family that
    is none of the paper's; then the one with most of `methods`, then the first given.  Another
    run follows where it has the same protocol, prompts and seeds.  Empty where none fits.
    """
    of_paper = published.settings()
    found = [beside(setting, run) for run in runs if run[0].family == setting.setting]
    found += [beside(setting, run) for run in runs if run[0].family not in of_paper]
    found = [b for b in found if set(methods) & set(b.rows)]
    if not found:
        return []

    def rank(b: Beside) -> tuple[bool, bool, int]:
        return b.is_stand_in, is_tiny(b.record), -len(set(methods) & set(b.rows))

    first = min(found, key=rank)
    return [first, *(b for b in found if b is not first and _same_ground(first.record, b.record))]


def is_tiny(record: RunRecord) -> bool:
    """Was it made with random weights?"""
    return _family(record).get("scale") == "tiny"


def command(setting: Setting, experiment: str, record: RunRecord | None = None) -> str:
    """The command that makes an experiment's numbers, like those of `record` where it is given."""
    words = [f"python -m srbench +experiment={experiment}"]
    if record is not None and record.family != setting.setting:
        words.append(f"family={record.family}")
    if record is not None and (kind := _suite_settings(record).get("kind")) != "vbench":
        words.append(f"suite={kind}")
        words += [WITH_SHAPES] if kind == "shapes" else []
    if record is not None and is_tiny(record):
        words.append("family.scale=tiny")
    return " ".join(words)


def _same_ground(a: RunRecord, b: RunRecord) -> bool:
    return (a.family, a.protocol, a.prompts, a.seeds) == (b.family, b.protocol, b.prompts, b.seeds)


def _matched(setting: Setting, record: RunRecord) -> dict[str, list[str]]:
    """The paper's methods of a setting → ids of this run's that are the same, in the run's order."""
    own_steps = _family(record).get("steps")
    paths: dict[tuple[str, int], list[str]] = {}
    for method in record.methods:
        if method.role != "scale" and method.sampler is None:
            steps = method.steps if method.steps is not None else own_steps
            paths.setdefault((published.signature(method.path), steps or 0), []).append(method.id)
    wanted = [m for m in published.methods() if m.setting == setting.setting]
    return {m.method: paths[m.path, m.steps] for m in wanted if (m.path, m.steps) in paths}


def _unlike(setting: Setting, record: RunRecord) -> str:
    """Why no number of the run is to be held against the paper's, or empty."""
    said = []
    if record.source == "imported":
        said.append("another tool's videos")
    if record.family != setting.setting:
        said.append(f"another family: {record.family}")
    if is_tiny(record):
        said.append("random weights: plumbing only")
    elif record.family == setting.setting:
        said += _other_settings(setting, record)
    return "; ".join([*said, *_other_suite(setting, record)])


def _other_settings(setting: Setting, record: RunRecord) -> list[str]:
    family, said = _family(record), []
    for role, name in (("large", setting.large), ("small", setting.small)):
        source = str((family.get(role) or {}).get("source"))
        if name.casefold() not in source.casefold():
            said.append(f"the {role} model is {source}, which isn't known to be {name}")
    if (family.get("width"), family.get("height")) != (setting.width, setting.height):
        said.append(
            f"{family.get('width')}×{family.get('height')} pixels, the paper's are "
            f"{setting.width}×{setting.height}"
        )
    if int(family.get("frames") or 0) // int(family.get("fps") or 1) != setting.seconds:
        said.append(f"{family.get('frames')} frames at {family.get('fps')} a second, not {setting.seconds} s")
    return said


def _other_suite(setting: Setting, record: RunRecord) -> list[str]:
    kind = _suite_settings(record).get("kind")
    if kind != "vbench":
        return [f"another suite: {kind}, not VBench"]
    said = []
    if len(record.prompts) < setting.prompts:
        said.append(f"{len(record.prompts)} of {setting.prompts} prompts")
    if len(record.seeds) != setting.seeds:
        said.append(f"{len(record.seeds)} seeds, the paper has {setting.seeds}")
    return said


def _suite(run: Run) -> str:
    """Whose totals the run has; empty where nothing scored it."""
    values = run[2].main[0].values
    suites = [v.column.key.partition("/")[0] for v in values if v.column.kind == "total"]
    return totals.suite_of(run[0], suites) if suites else ""


def _family(record: RunRecord) -> Mapping[str, Any]:
    family = record.resolved.get("family")
    return family if isinstance(family, Mapping) else {}


def _suite_settings(record: RunRecord) -> Mapping[str, Any]:
    suite = record.resolved.get("suite")
    return suite if isinstance(suite, Mapping) else {}


def _facts(run: Run, metric: str) -> MetricFacts | None:
    """A metric's facts, from the first score of it."""
    for cell in run[1]:
        for score in cell.scores:
            if score.metric.name == metric:
                return score.metric
    return None


def _as_printed(value: Value, facts: MetricFacts | None) -> Value:
    """100 · weight · (v − low) / (high − low), as the paper prints a dimension; a raw score comes in.

    The weight is that in a group's mean where it is below 1, as the dynamic degree's 0.5.
    """
    if facts is None:
        return value
    low, high = facts.scale
    factor = 100.0 * min(facts.weight, 1.0) / (high - low)
    column = Column(
        value.column.key,
        value.column.heading,
        "%",
        value.column.higher_is_better,
        kind="dimension",
        decimals=2,
        note=f"{value.column.key}, normalised and times its weight",
    )

    def moved(number: float | None) -> float | None:
        return None if number is None else factor * (number - low)

    error = None if value.standard_error is None else factor * value.standard_error
    return replace(
        value,
        column=column,
        value=moved(value.value),
        low=moved(value.low),
        high=moved(value.high),
        standard_error=error,
    )
