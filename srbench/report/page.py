"""RUN/report.html and RUN/report/: the page of a run, read from disk with no network.

Everything comes from records. What a browser must not interpret (prompts, labels, reasons)
reaches it either escaped, in the static part, or as JSON strings that the script puts into
text nodes; the page's security policy allows no inline code and no address but its own.

    report.html              verdicts, table, figures, protocol: readable without a script
    report/data/index.js     methods, prompts, losses: what the lists need
    report/data/p0003.js     one prompt: its cells of all seeds and methods; loaded when opened
    report/videos, figures   links to the run's own folders; `cp -rL` makes a copy that travels
"""

from __future__ import annotations

import json
import math
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from srbench.report.figures import Figure, Method, half_interval, methods
from srbench.report.values import Row, Value, decimals, shown
from srbench.store.records import CellRecord, Outcome, RunRecord, Score

ASSETS = Path(__file__).parent / "page_assets"
SAMPLE_SEED = 0  # of the random order in which prompts are shown first; it is told on the page
SIMILAR = {"psnr": (30.0, 25.0, 20.0), "ssim": (0.9, 0.8, 0.7)}  # lines the verdict may name, best first
FEW_PROMPTS = 8  # below it, intervals are wide and their cover rests on the t distribution alone
Facts = list[tuple[str, str]]


def write(
    folder: Path, run: RunRecord, cells: Sequence[CellRecord], table: Sequence[Row], figures: Sequence[Figure]
) -> Path:
    """Write RUN/report.html and what it needs below RUN/report; returns the page's path.

    table: report.table.rows(run, cells); figures: report.figures.draw(folder / "figures", …).
    Data of an earlier page is replaced, so nothing on it is older than the records.
    """
    report, found = folder / "report", methods(run, cells, table)
    data = report / "data"
    data.mkdir(parents=True, exist_ok=True)
    for old in data.glob("*.js"):
        old.unlink()
    for asset in ASSETS.iterdir():
        if asset.suffix in (".js", ".css"):
            _put(report / asset.name, asset.read_text("utf-8"))
    for linked in ("videos", "figures"):
        _link(report / linked, Path("..") / linked)
    prompts = _prompts(run, cells)
    for index, members in _by_prompt(cells, prompts).items():
        _put(data / f"{_shard(index)}.js", shard(folder, index, prompts[index], members, found))
    _put(data / "index.js", f"window.srbenchIndex = {_json(index_data(run, cells, table, found))};\n")
    page = folder / "report.html"
    _put(page, html(run, cells, table, figures, found))
    return page


def _put(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)


def _link(link: Path, target: Path) -> None:
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.symlink_to(target, target_is_directory=True)


def _json(data: Any) -> str:
    """JSON that is also JavaScript: all but ASCII escaped, no NaN."""
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


# What the scripts need


def _prompts(run: RunRecord, cells: Iterable[CellRecord]) -> dict[int, str]:
    return dict(sorted((dict(enumerate(run.prompts)) | {c.prompt_index: c.prompt for c in cells}).items()))


def _by_prompt(cells: Iterable[CellRecord], prompts: Iterable[int]) -> dict[int, list[CellRecord]]:
    grouped: dict[int, list[CellRecord]] = {i: [] for i in prompts}
    for cell in cells:
        grouped[cell.prompt_index].append(cell)
    return grouped


def _shard(index: int) -> str:
    return f"p{index:04}"


def slug(name: str, method_id: str) -> str:
    """A method in an address and in its videos' file names: `srd_01-6a17`."""
    return f"{name}-{method_id[:4]}"


def index_data(
    run: RunRecord, cells: Sequence[CellRecord], table: Sequence[Row], found: Sequence[Method]
) -> dict[str, Any]:
    """What the page loads first: 944 prompts × 16 methods × 3 metrics are some 300 kB."""
    prompts = _prompts(run, cells)
    order = list(prompts)
    random.Random(SAMPLE_SEED).shuffle(order)
    seeds = sorted({*run.seeds, *(c.seed for c in cells)})
    metrics = [c for c in (v.column for v in table[0].values) if c.group == "quality"]
    return {
        "fps": _family(run).get("fps"),
        "methods": [
            {
                "slug": slug(m.row.method, m.row.method_id),
                "label": m.row.label,
                "reference": m.row.is_reference,
            }
            for m in found
        ],
        "metrics": [
            {"name": c.key, "heading": c.heading, "unit": c.unit, "higher": c.higher_is_better is not False}
            for c in metrics
        ],
        "prompts": [[index, prompts[index]] for index in prompts],
        "seeds": seeds,
        "random": order,
        "random_seed": SAMPLE_SEED,
        "loss": {c.key: _losses(found, c.key, list(prompts)) for c in metrics},
        "details": [[details(run, row, value) for value in row.values] for row in table],
        "protocol": protocol_facts(run),
    }


def _losses(found: Sequence[Method], metric: str, prompts: Sequence[int]) -> list[list[float | None]]:
    """[prompt][method]: the mean over seeds of one metric; None where it has none."""
    sums: dict[tuple[int, int], list[float]] = defaultdict(list)
    for m, method in enumerate(found):
        for cell in method.cells:
            score = _score(cell, metric)
            if score is not None and not (method.row.is_reference and score.metric.needs_reference):
                sums[cell.prompt_index, m].append(_finite(score.value))
    return [
        [_rounded(sum(vs) / len(vs)) if (vs := sums.get((p, m))) else None for m in range(len(found))]
        for p in prompts
    ]


def _score(cell: CellRecord, metric: str) -> Score | None:
    """A done, finite score."""
    for score in cell.scores:
        if score.metric.name == metric and score.outcome == "done" and score.value is not None:
            return score if math.isfinite(score.value) else None
    return None


def _finite(value: float | None) -> float:
    assert value is not None
    return value


def _rounded(value: float) -> float | None:
    """Five significant digits: what the page draws and sorts by; tables have all of them."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def shard(folder: Path, index: int, prompt: str, cells: Iterable[CellRecord], found: Sequence[Method]) -> str:
    """One prompt's script: what each cell is, where its video lies, its scores frame by frame."""
    place = {m.row.method_id: i for i, m in enumerate(found)}
    entries: dict[int, dict[int, Any]] = defaultdict(dict)
    for cell in cells:
        m = place[cell.method_id]
        known = entries[cell.seed].get(m)
        if known is None or known["outcome"] != "done":
            entries[cell.seed][m] = _cell(folder, cell)
    return f"window.srbenchShard({index}, {_json({'prompt': prompt, 'seeds': entries})});\n"


def _cell(folder: Path, cell: CellRecord) -> dict[str, Any]:
    video = f"videos/p{cell.prompt_index:03}-seed{cell.seed}/{slug(cell.method, cell.method_id)}.webm"
    reason = cell.reason
    if cell.outcome == "done" and not (folder / video).exists():
        video, reason = "", "its video is not in the run's folder"
    scores = [] if cell.is_reference else [_cell_score(s) for s in cell.scores]
    return {
        "outcome": cell.outcome,
        "reason": reason,
        "video": f"report/{video}" if video and cell.outcome == "done" else None,
        "switches": list(cell.trace.switches) if cell.trace else [],
        "steps": len(cell.trace) if cell.trace else 0,
        "scores": scores,
        "facts": _cell_facts(cell),
    }


def _cell_score(score: Score) -> dict[str, Any]:
    value = score.value if score.value is not None and math.isfinite(score.value) else None
    return {
        "name": score.metric.name,
        "value": value,
        "frames": [_rounded(x) for x in score.per_frame],
        "reason": score.reason,
        "facts": [
            ("metric", f"{score.metric.name}, version {score.metric.version}"),
            ("reference's sha256", score.reference or "none"),
        ],
    }


def _cell_facts(cell: CellRecord) -> Facts:
    return [
        ("cell", cell.id),
        ("video's sha256", cell.video or "none"),
        ("protocol", cell.protocol),
        ("computed on", cell.host or "not recorded"),
        ("finished", cell.finished or "not recorded"),
    ]


# What stands behind a number


def details(run: RunRecord, row: Row, value: Value) -> Facts:
    """A number's protocol, as (term, words)."""
    column = value.column
    facts: Facts = [("method", row.label), ("quantity", column.note or column.title)]
    if value.value is not None:
        facts.append(("mean", f"{value.value:.6g} {column.marked_unit}".strip()))
        half = half_interval(value)
        if half is not None:
            facts.append(("95 % interval", f"{value.value:.4g} ± {half:.3g}, t over prompts"))
        facts.append(("over", f"{_count(value.n, 'video')} of {_count(value.clusters, 'prompt')}"))
    if value.outcome != "done" or value.reason:
        facts.append((value.outcome if value.outcome != "done" else "note", value.reason))
    return [*facts, ("protocol", value.protocol), ("device", run.device)]


def protocol_facts(run: RunRecord) -> Facts:
    """What the numbers of this run share."""
    family = _family(run)
    facts: Facts = [("protocol", run.protocol), ("experiment", run.experiment), ("run", run.run)]
    facts += [
        (key.replace("_", " "), _words(value)) for key, value in family.items() if value not in ("", {})
    ]
    dirty = {True: ", with changes not committed", False: "", None: ""}[run.dirty]
    return [
        *facts,
        ("prompts × seeds", f"{len(run.prompts)} × {len(run.seeds)}"),
        ("step times", "of the sweep itself (est.)" if run.timing == "shared" else "of a pass of its own"),
        ("device", f"{run.device}, {_count(run.threads, 'thread')}"),
        ("commit", f"{run.commit or 'unknown'}{dirty}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in run.packages.items())),
        ("asked", " ".join(run.asked)),
        ("started", run.started),
    ]


def _family(run: RunRecord) -> Mapping[str, Any]:
    family = run.resolved.get("family")
    return family if isinstance(family, Mapping) else {}


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items() if inner is not None)
    return "none" if value is None else str(value)


def _count(n: int, word: str) -> str:
    """As in `1 prompt` or `2 prompts`."""
    return f"{n:,} {word}{'s' * (n != 1)}"


# Verdicts


def verdicts(run: RunRecord, cells: Sequence[CellRecord], table: Sequence[Row]) -> list[str]:
    """What the records say, in plain sentences, the most needed first; nothing beyond them."""
    found = methods(run, cells, table)
    said = [_done(run, cells, found), *_fastest(found), *_alone(found)]
    clusters = max((v.clusters for row in table for v in row.values), default=0)
    if 0 < clusters < FEW_PROMPTS:
        said.append(f"Only {_count(clusters, 'prompt')}: intervals are wide, and differences may be chance.")
    if run.timing == "shared" and any(c.step_seconds for c in cells):
        said.append("Latencies and speedups are estimates (est.): step times come from a shared run.")
    return [*said, *(f"Warning: {w}" for w in run.warnings)]


def _done(run: RunRecord, cells: Sequence[CellRecord], found: Sequence[Method]) -> str:
    videos: dict[tuple[str, int, int], Outcome] = {}
    for cell in sorted(cells, key=lambda c: c.outcome == "done"):  # one that is done outdoes another try
        videos[cell.method_id, cell.prompt_index, cell.seed] = cell.outcome
    planned = max(len(found) * len(run.prompts) * len(run.seeds), len(videos))
    outcomes = Counter(videos.values())
    outcomes["missing"] += planned - len(videos)
    rest = [f"{n:,} {outcome}" for outcome, n in outcomes.items() if outcome != "done" and n]
    return (
        f"{outcomes['done']:,} of {_count(planned, 'cell')} done"
        f"{': ' + ', '.join(rest) if rest else ''} "
        f"({_count(len(found), 'method')}, {_count(len(run.prompts), 'prompt')}, "
        f"{_count(len(run.seeds), 'seed')})."
    )


def _fastest(found: Sequence[Method]) -> list[str]:
    """The fastest method above the highest line that one reaches, for the first metric with lines."""
    rivals = [m for m in found if m.role != "reference" and _number(m, "speedup") is not None]
    for column in (v.column for v in found[0].row.values):
        lines = SIMILAR.get(column.key.partition("/")[0], ())
        for line in lines:
            over = [m for m in rivals if (_number(m, column.key) or -math.inf) >= line]
            if over:
                best = max(over, key=lambda m: _number(m, "speedup") or 0.0)
                at_least = f"{line:g} {column.unit}".rstrip()
                return [
                    f"Fastest of the {_count(len(over), 'method')} with a mean {column.heading} of at "
                    f"least {at_least} to the reference: {best.row.label}, {_said(best, 'speedup')} at "
                    f"{_said(best, column.key)}. That line is this page's, not a limit of what one sees."
                ]
        if lines and any(_number(m, column.key) is not None for m in rivals):
            return [
                f"No method with a speedup reaches a mean {column.heading} of {lines[-1]:g} "
                f"{column.unit}".rstrip()
                + " to the reference."
            ]
    return []


def _number(method: Method, key: str) -> float | None:
    return next((v.value for v in method.row.values if v.column.key == key), None)


def _said(method: Method, key: str) -> str:
    """As in `1.19× (est.)`"""
    value = method.row[key]
    column = value.column
    number = f"{value.value:.{column.decimals}f}{'' if column.unit == '×' else ' '}{column.unit}".strip()
    return f"{number} (est.)" if column.estimated else number


def _alone(found: Sequence[Method]) -> list[str]:
    """The two rivals that every method must beat, or that they are lacking."""
    said = []
    for who, words in (("small", "The small model alone"), ("fewer", "The large model with fewer steps")):
        for method in (m for m in found if m.role == who):
            keys = ["speedup", *(v.column.key for v in method.row.values if v.column.group == "quality")]
            numbers = [
                f"{method.row[k].column.heading} {_said(method, k)}" for k in keys if _number(method, k)
            ]
            name = words if method.row.label == who else f"{words} ({method.row.label})"
            said.append(f"{name}: {', '.join(numbers) or 'no numbers'}.")
        if not any(m.role == who for m in found):
            said.append(f"{words} is not in this run, so what others gain over it can't be told.")
    return said


# The static part


def html(
    run: RunRecord,
    cells: Sequence[CellRecord],
    table: Sequence[Row],
    figures: Sequence[Figure],
    found: Sequence[Method],
) -> str:
    """The page's text; every word from the records is escaped."""
    prompts = _prompts(run, cells)
    template = Template((ASSETS / "page.html").read_text("utf-8"))
    commit = run.commit[:12] if run.commit else "commit unknown"
    return template.substitute(
        title=escape(run.experiment),
        lead=escape(f"{run.family} · {run.device} · {commit} · protocol {run.protocol[:12]}"),
        verdicts="\n".join(f"<li>{escape(line)}</li>" for line in verdicts(run, cells, table)),
        table=table_html(table),
        notes="\n".join(f"<li>{escape(note)}</li>" for note in table_notes(table)),
        figures="\n".join(map(_figure_html, figures)),
        prompts=escape(_count(len(prompts), "prompt")),
        protocol="\n".join(
            f"<div><dt>{escape(term)}</dt><dd>{escape(words)}</dd></div>"
            for term, words in protocol_facts(run)
            if words
        ),
        started=escape(run.started),
    )


def table_html(table: Sequence[Row]) -> str:
    """The table; each number a button that the script gives its protocol."""
    columns = list(zip(*(row.values for row in table), strict=True))
    digits = [decimals(values) for values in columns]
    heads = "".join(
        f'<th scope="col" class="{c.group}" aria-sort="none"><button type="button">'
        f"{escape(c.heading)}{_arrow(c.higher_is_better)}"
        f"<small>{escape(c.marked_unit)}</small></button></th>"
        for c in (values[0].column for values in columns)
    )
    lines = []
    for r, row in enumerate(table):
        numbers = "".join(_number_html(v, digits[c], f"{r},{c}") for c, v in enumerate(row.values))
        kind = ' class="reference"' if row.is_reference else ""
        lines.append(f'<tr{kind}><th scope="row">{escape(row.label)}</th>{numbers}</tr>')
    method = '<th scope="col" aria-sort="none"><button type="button">method</button></th>'
    return f"<thead><tr>{method}{heads}</tr></thead>\n<tbody>\n" + "\n".join(lines) + "\n</tbody>"


def _arrow(higher: bool | None) -> str:
    if higher is None:
        return ""
    arrow, words = ("↑", "higher is better") if higher else ("↓", "lower is better")
    return f' <abbr title="{words}">{arrow}</abbr>'


def _number_html(value: Value, digits: int, place: str) -> str:
    number, _, error = shown(value, digits).partition(" ±")
    sort = "" if value.value is None else repr(value.value)
    mark = f'<i class="mark" title="{escape(value.outcome)}">†</i>' if value.footnote else ""
    tail = f" <small>±{escape(error)}</small>" if error else ""
    return (
        f'<td data-sort="{sort}"><button type="button" class="number" data-place="{place}">'
        f"{escape(number)}{mark}{tail}</button></td>"
    )


def table_notes(table: Sequence[Row]) -> list[str]:
    """What stands below the table: how to read it, then every reason with whom it concerns."""
    columns = [v.column for v in table[0].values]
    notes = ["Means over prompts ± standard error over prompts; seeds repeat inside a prompt."]
    notes += list(dict.fromkeys(c.note for c in columns if c.note))
    concerned: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row in table:
        for value in row.values:
            if value.footnote:
                concerned[row.label, value.footnote].append(value.column.heading)
    return [
        *notes,
        *(f"† {label}, {', '.join(heads)}: {reason}" for (label, reason), heads in concerned.items()),
    ]


def _figure_html(figure: Figure) -> str:
    title = escape(figure.title)
    if figure.missing:
        return (
            f'<figure class="missing" id="figure-{escape(figure.name)}"><h3>{title}</h3>'
            f"<p>Not drawn: {escape(figure.missing)}.</p></figure>"
        )
    name, (width, height) = re.sub(r"[^\w.-]", "_", figure.name), figure.size
    return (
        f'<figure id="figure-{name}"><h3>{title}</h3>'
        f'<img src="report/figures/{name}.png" width="{width}" height="{height}" loading="lazy" '
        f'alt="{title}. {escape(figure.caption)}"><figcaption>{escape(figure.caption)} '
        f'<a href="report/figures/{name}.pdf">PDF</a></figcaption></figure>'
    )
