"""Tables 1 to 7 of the paper, each number beside what runs measured and the difference of the two.

Measured numbers are those of report.table, unchanged; a difference is measured minus published
with the measured number's own 95 % interval, since the paper prints no errors. Published numbers
are quoted: nothing here ranks them or averages them with anything.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from srbench.analysis.table import Run
from srbench.analysis.values import Value
from srbench.errors import counted
from srbench.paper import matching, published
from srbench.paper.matching import MP4, SIMILARITY, Beside
from srbench.paper.published import Method, Setting
from srbench.paper.published import Printed as Quoted
from srbench.store.records import RunRecord

TITLES = {
    "1": "The two Wan models: VBench's leaderboard, latency measured by the paper",
    "2": "SRDiffusion against PAB and TeaCache",
    "3": "SRDiffusion with TeaCache while rendering",
    "4": "Adaptive against fixed switch",
    "5": "Wan 2.1 at 720p",
    "6": "All Wan 2.1 configurations and VBench's dimensions",
    "7": "All CogVideoX configurations and VBench's dimensions",
}
TRANSPOSED = ("6", "7")  # methods are columns
ORDER = ("vbench/total", "vbench/quality", "vbench/semantic", "lpips", "psnr", "ssim", "latency", "speedup")
NO_NUMBER = "no measured number"
CSV_FIELDS = (
    "table,setting,method,name,column,unit,better,baseline,published,measured,measured_unit,standard_error,"
    "low,high,n,clusters,difference,difference_low,difference_high,quantity,method_id,label,family,suite,"
    "experiment,run,protocol,device,outcome,measured_reason,difference_reason"
).split(",")


@dataclass(frozen=True)
class Difference:
    """Measured minus published, with the measured number's 95 % interval; None where it has none."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class Entry:
    """One cell of a table.

    quoted: None where the paper prints nothing.  measured: in the paper's unit; its value may be
    None, with the reason inside.  absent: why there is no measured value at all.  difference:
    None for the reason `apart`, which is empty where nothing is due.
    """

    method: Method
    column: str
    quoted: Quoted | None
    measured: Value | None
    absent: str
    difference: Difference | None
    apart: str
    beside: Beside | None = None

    @property
    def measured_reason(self) -> str:
        """Why there is no measured number, or what stands behind it that is short."""
        return self.measured.footnote if self.measured else self.absent


@dataclass(frozen=True, eq=False)
class Block:
    """The rows of one setting in a table.

    methods, columns: in the paper's order.  entries: by (method, column).  notes: what a
    reader must know of the measured numbers.  unstated: what the paper leaves open, and what
    is taken here.
    """

    table: str
    setting: Setting
    methods: tuple[Method, ...]
    columns: tuple[str, ...]
    entries: Mapping[tuple[str, str], Entry]
    notes: tuple[str, ...]
    unstated: tuple[str, ...]

    @property
    def has_measured(self) -> bool:
        return any(e.measured is not None for e in self.entries.values())

    @property
    def has_difference(self) -> bool:
        return any(e.difference is not None for e in self.entries.values())

    @property
    def found(self) -> Counter[str]:
        """How many of its methods have a number, by whose it is: `measured`, or a stand-in's name."""
        of = {m: e.beside.whose for (m, _), e in self.entries.items() if e.measured is not None and e.beside}
        return Counter(of.values())


@dataclass(frozen=True, eq=False)
class PaperTable:
    """One table; its number is as printed, `1` to `7`."""

    number: str
    title: str
    blocks: tuple[Block, ...]

    @property
    def transposed(self) -> bool:
        """Methods as columns."""
        return self.number in TRANSPOSED


def make(runs: Sequence[Run]) -> list[PaperTable]:
    """All seven tables, with the numbers of whichever runs stand beside each setting."""
    return [
        PaperTable(number, title, tuple(_block(number, s, runs) for s in _settings(number)))
        for number, title in TITLES.items()
    ]


def experiment(table: str, setting: str) -> str:
    """The experiment that makes a table's block."""
    both = len(_settings(table)) > 1
    return f"table{table}{'_cogvideox' if both and setting == 'cogvideox' else ''}"


def _settings(table: str) -> list[str]:
    return list(dict.fromkeys(v.setting for v in published.values() if v.table == table))


def _block(table: str, setting: str, runs: Sequence[Run]) -> Block:
    own = [v for v in published.values() if (v.table, v.setting) == (table, setting)]
    by_name = {m.method: m for m in published.methods() if m.setting == setting}
    names = list(dict.fromkeys(v.method for v in own))
    columns = list(dict.fromkeys(v.column for v in own))
    if table not in TRANSPOSED:
        columns.sort(key=ORDER.index)
    facts = published.settings()[setting]
    beside = matching.choose(facts, names, runs)
    missing = _missing(table, facts, [by_name[n] for n in names], beside)
    entries = {
        (name, column): _entry(table, by_name[name], column, beside, missing)
        for name in names
        for column in columns
    }
    return Block(
        table,
        facts,
        tuple(by_name[n] for n in names),
        tuple(columns),
        entries,
        tuple(_notes(table, facts, columns, beside)),
        tuple(f"{what} ({taken})" for what, taken in published.unstated(setting)),
    )


def _missing(table: str, setting: Setting, methods: Sequence[Method], beside: Sequence[Beside]) -> str:
    """Why methods of a block have no numbers, and the command that makes them; empty where all have."""
    made = experiment(table, setting.setting)
    if not beside:
        return f"no run of {setting.name} was given; {matching.command(setting, made)}"
    absent = [m.path for m in methods if not any(m.method in b.rows for b in beside)]
    if not absent:
        return ""
    command = matching.command(setting, made, beside[0].record)
    return f"not in the run, as {methods[0].steps} steps: {'; '.join(absent)}. {command} makes them"


def _entry(table: str, method: Method, column: str, beside: Sequence[Beside], missing: str) -> Entry:
    quoted = published.by_place().get((table, method.setting, method.method, column))
    own = next((b for b in beside if method.method in b.rows), None)
    value = own.value(method.method, column) if own else None
    if own is None or value is None:
        absent = _lacking(column, own) if own else missing
        return Entry(method, column, quoted, None, absent, None, NO_NUMBER if quoted else "")
    difference, apart = _difference(quoted, value, own)
    return Entry(method, column, quoted, value, "", difference, apart, own)


def _lacking(column: str, beside: Beside) -> str:
    """Why a run that has the method has no such quantity."""
    if column in SIMILARITY:
        return f"no {column} in the run; add metric={column}"
    if not column.startswith("vbench/"):
        return f"no {column} in the run"
    if beside.suite not in ("", "vbench"):
        return f"the suite {beside.suite} has no such dimension"
    if beside.asked_suite == "vbench":
        return f"VBench has not scored the run; srbench vbench score …/{beside.record.run}"
    if beside.asked_suite == "shapes":
        return f"no score of the suite shapes in the run; {matching.WITH_SHAPES} adds it"
    return f"the suite {beside.asked_suite} scored nothing in this run"


def _difference(quoted: Quoted | None, value: Value, beside: Beside) -> tuple[Difference | None, str]:
    if quoted is None or (quoted.column == "speedup" and not quoted.baseline):
        return None, ""  # nothing is due: the paper prints none, or what all others are relative to
    if value.word or value.value is None:
        return None, NO_NUMBER
    if beside.unlike:
        return None, beside.unlike
    if value.outcome != "done":
        return None, f"incomplete: {value.reason}"
    if quoted.column == "latency" and beside.setting.device not in beside.record.device:
        return None, f"measured on {beside.record.device}, published on {beside.setting.device}"
    low, high = (None if end is None else end - quoted.value for end in (value.low, value.high))
    return Difference(value.value - quoted.value, low, high), ""


# Notes


def _notes(table: str, setting: Setting, columns: Sequence[str], beside: Sequence[Beside]) -> list[str]:
    if not beside:
        of = matching.command(setting, experiment(table, setting.setting))
        return [f"measured: –, no run of {setting.name} was given; {of}"]
    first = beside[0]
    said = [f"measured: {_of(b)}" for b in beside]
    if first.unlike:
        said.append(f"differences: – ({first.unlike})")
    if first.suite not in ("", "vbench") and any(c.startswith("vbench/") for c in columns):
        said.append(
            f"measured scores are {first.suite}/total and the like, of the suite {first.suite}; not VBench"
        )
    said += _similarity_note(first, columns)
    if any(c in ("latency", "speedup") for c in columns):
        said.append(_time_note(first))
    said += [f"the run has more methods of these paths, not shown: {', '.join(first.twice)}"] * bool(
        first.twice
    )
    return [*said, *_prompts_note(table, first)]


def _of(beside: Beside) -> str:
    record: RunRecord = beside.record
    suite = f"suite {beside.suite or 'not scored'}{'' if beside.suite in ('', 'vbench') else ' (not VBench)'}"
    return (
        f"{record.experiment}, run {record.run}, family {record.family}, {suite}, "
        f"{counted(len(record.prompts), 'prompt')} × {counted(len(record.seeds), 'seed')}, "
        f"{record.device}, protocol {record.protocol[:12]}"
    )


def _similarity_note(beside: Beside, columns: Sequence[str]) -> list[str]:
    keys = [key for c in columns if c in SIMILARITY and (key := beside.key(c))]
    if not keys:
        return []
    through = "through a lossy mp4" if all(MP4 in k for k in keys) else "on lossless frames"
    if len({MP4 in k for k in keys}) > 1:
        through = "those with x264 through a lossy mp4, the others on lossless frames"
    return [f"similarity measured as {', '.join(keys)}, {through}; published presumably through a lossy mp4"]


def _time_note(beside: Beside) -> str:
    how = "est., from step times of a shared run; errors are over prompts, each with its own step times"
    if beside.record.timing != "shared":
        how = "a pass of its own; errors are over prompts and rounds"
    where = f"latency and speedup measured on {beside.record.device} ({how})"
    return f"{where}, published on one {beside.setting.device}"


def _prompts_note(table: str, beside: Beside) -> list[str]:
    """Table 1 quotes the leaderboard's prompts; all else of Wan was extended by a language model."""
    suite = beside.record.resolved.get("suite")
    plain = isinstance(suite, Mapping) and not suite.get("extended")
    if beside.unlike or not plain:
        return []
    return ["measured on VBench's plain prompts; the paper extended them with Qwen2.5"]


# Tidy


def to_csv(table: PaperTable) -> str:
    """A line for each cell, numbers with all their digits; a field is empty where there is nothing."""
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_FIELDS, restval="", lineterminator="\n")
    writer.writeheader()
    for block in table.blocks:
        for entry in block.entries.values():
            writer.writerow({k: _word(v) for k, v in _line(block, entry).items()})
    return out.getvalue()


def _word(value: object) -> str:
    return "" if value is None else repr(value) if isinstance(value, float) else str(value)


def _line(block: Block, entry: Entry) -> dict[str, object]:
    quoted, value, beside, difference = entry.quoted, entry.measured, entry.beside, entry.difference
    line: dict[str, object] = {
        "table": block.table,
        "setting": block.setting.setting,
        "method": entry.method.method,
        "name": entry.method.name,
        "column": entry.column,
        "measured_reason": entry.measured_reason,
        "difference_reason": entry.apart,
    }
    if quoted is not None:
        line |= {"unit": quoted.unit, "better": "higher" if quoted.higher_is_better else "lower"}
        line |= {"baseline": quoted.baseline, "published": quoted.text}
    if value is not None:
        line |= {"measured": value.value, "measured_unit": value.column.marked_unit}
        line |= {name: getattr(value, name) for name in ("standard_error", "low", "high", "n", "clusters")}
        line |= {"quantity": value.column.key, "outcome": value.outcome, "protocol": value.protocol}
    if beside is not None:
        row, record = beside.rows[entry.method.method], beside.record
        line |= {"method_id": row.method_id, "label": row.label, "suite": beside.suite}
        line |= {name: getattr(record, name) for name in ("family", "experiment", "run", "device")}
    if difference is not None:
        line |= {"difference": difference.value}
        line |= {"difference_low": difference.low, "difference_high": difference.high}
    return line
