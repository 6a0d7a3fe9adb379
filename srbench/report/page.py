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
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from pydantic_core import to_json

from srbench.analysis import aside
from srbench.analysis.aside import Aside
from srbench.analysis.table import Tables
from srbench.analysis.values import Column, Row, Value, fixed, shown
from srbench.errors import counted
from srbench.report import legend, printed
from srbench.report.figures import Figure, Method, methods
from srbench.report.verdicts import verdicts
from srbench.store.records import CellRecord, RunRecord, Score, linked, slug

if TYPE_CHECKING:
    from srbench.paper.pages import Paper

ASSETS = Path(__file__).parent / "page_assets"
MOST_COMMANDS = 10  # that the page lists after the first
SAMPLE_SEED = 0  # of the random order in which prompts are shown first; it is told on the page
PARTS = 8  # of the prompts, each of which a process of its own writes
Facts = list[tuple[str, str]]


def shards(
    folder: Path, run: RunRecord, cells: Sequence[CellRecord], tables: Tables, parts: int = PARTS
) -> Aside:
    """Writes RUN/report/data/p*.js, a file for each prompt, inside a `with`.

    A large run's in a process beside, for that takes as long as everything else a page needs.
    Data of an earlier page is removed at once.
    """
    data, found = folder / "report" / "data", methods(run, cells, tables.main)
    data.mkdir(parents=True, exist_ok=True)
    for old in data.glob("*.js"):
        old.unlink(missing_ok=True)
    prompts = _prompts(run, cells)
    by_prompt = list(_by_prompt(cells, prompts).items())

    def write_part(part: int) -> None:
        for index, members in by_prompt[part::parts]:
            _put(data / f"{_shard(index)}.js", shard(folder, index, prompts[index], members, found))

    return Aside(write_part, parts, aside.is_worthwhile(len(cells)))


def write(
    folder: Path,
    run: RunRecord,
    cells: Sequence[CellRecord],
    tables: Tables,
    figures: Sequence[Figure],
    paper: Paper | None = None,
) -> Path:
    """Write RUN/report.html and what it needs below RUN/report but for `shards`; returns the page's path.

    tables: report.table.make(run, cells); figures: report.figures.draw(folder / "figures", …).
    paper: what report.paper.write() made, which the page then links to.
    """
    main, empty = printed.without_empty(tables.main)
    tables = replace(tables, main=main)
    report, found = folder / "report", methods(run, cells, tables.main)
    for asset in ASSETS.iterdir():
        if asset.suffix in (".js", ".css"):
            _put(report / asset.name, asset.read_text("utf-8"))
    for name in ("videos", "figures"):
        _link(report / name, Path("..") / name)
    _put(
        report / "data" / "index.js",
        f"window.srbenchIndex = {_json(index_data(run, cells, tables, found))};\n",
    )
    page = folder / "report.html"
    told = paper_html(paper, folder) if paper else ""
    _put(page, html(run, cells, tables, figures, found, empty, told))
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
    return _ENCODER.encode(data)


_ENCODER = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))


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


def index_data(
    run: RunRecord, cells: Sequence[CellRecord], tables: Tables, found: Sequence[Method]
) -> dict[str, Any]:
    """What the page loads first: 944 prompts × 16 methods × 3 metrics are some 300 kB."""
    prompts = _prompts(run, cells)
    order = list(prompts)
    random.Random(SAMPLE_SEED).shuffle(order)
    seeds = sorted({*run.seeds, *(c.seed for c in cells)})
    heads = [v.column for rows in (tables.main, tables.dimensions) for v in rows[0].values]
    metrics = [c for c in heads if c.kind in ("similarity", "dimension")]
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
            {
                "name": c.key,
                "heading": c.heading,
                "unit": c.unit,
                "higher": c.higher_is_better is not False,
                "difference": c.kind == "dimension",
            }
            for c in metrics
        ],
        "prompts": [[index, prompts[index]] for index in prompts],
        "seeds": [str(s) for s in seeds],  # as numbers a browser would round those above 2^53
        "random": order,
        "random_seed": SAMPLE_SEED,
        "loss": _losses(found, metrics, list(prompts)),
        "details": {
            name: [[details(run, row, value) for value in row.values] for row in rows]
            for name, rows in (("table", tables.main), ("dimensions", tables.dimensions))
        },
        "protocol": protocol_facts(run, cells),
    }


def _losses(
    found: Sequence[Method], columns: Sequence[Column], prompts: Sequence[int]
) -> dict[str, list[list[float | None]]]:
    """By column [prompt][method]: the mean over seeds of a similarity, or of a dimension minus the
    reference's.  None where there is no such number.
    """
    means = [_prompt_means(method) for method in found]
    return {c.key: _loss(found, c, [own.get(c.key, {}) for own in means], prompts) for c in columns}


def _loss(
    found: Sequence[Method], column: Column, means: Sequence[Mapping[int, float]], prompts: Sequence[int]
) -> list[list[float | None]]:
    if column.kind == "similarity":
        means = [{} if m.row.is_reference else own for m, own in zip(found, means, strict=True)]
        return [[_rounded(own.get(p)) for own in means] for p in prompts]
    base = next((own for m, own in zip(found, means, strict=True) if m.row.is_reference), {})
    return [
        [_rounded(own[p] - base[p]) if p in own and p in base else None for own in means] for p in prompts
    ]


def _prompt_means(method: Method) -> dict[str, dict[int, float]]:
    """By metric each prompt's mean over seeds, of the first score of each cell, if done and finite."""
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in method.cells:
        seen = set()
        for score in cell.scores:
            name, value = score.metric.name, score.value
            if score.outcome == "done" and value is not None and name not in seen:
                seen.add(name)
                if math.isfinite(value):
                    values[name][cell.prompt_index].append(value)
    return {
        name: {prompt: math.fsum(vs) / len(vs) for prompt, vs in own.items()} for name, own in values.items()
    }


def _rounded(value: float | None) -> float | None:
    """Five significant digits: what the page draws and sorts by; tables have all of them."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def shard(folder: Path, index: int, prompt: str, cells: Iterable[CellRecord], found: Sequence[Method]) -> str:
    """One prompt's script: what each cell is, where its video lies, its scores frame by frame."""
    place = {m.row.method_id: i for i, m in enumerate(found)}
    chosen: dict[int, dict[int, CellRecord]] = defaultdict(dict)
    for cell in cells:
        m = place[cell.method_id]
        known = chosen[cell.seed].get(m)
        if known is None or known.outcome != "done":
            chosen[cell.seed][m] = cell
    seeds = {
        seed: _object({m: _cell(folder, cell) for m, cell in of_seed.items()})
        for seed, of_seed in chosen.items()
    }
    return f"window.srbenchShard({index}, {_object({'prompt': _json(prompt), 'seeds': _object(seeds)})});\n"


def _object(parts: Mapping[Any, str]) -> str:
    """A JSON object of parts that are JSON already."""
    return "{" + ",".join(f'"{name}":{part}' for name, part in parts.items()) + "}"


def _cell(folder: Path, cell: CellRecord) -> str:
    video = os.path.relpath(linked(folder, cell), folder)
    reason = cell.reason
    if cell.outcome == "done" and not os.path.exists(f"{folder}/{video}"):
        video, reason = "", "its video is not in the run's folder"
    scores = [_cell_score(s) for s in cell.scores if not (cell.is_reference and s.metric.needs_reference)]
    about = {
        "outcome": cell.outcome,
        "reason": reason,
        "video": f"report/{video}" if video and cell.outcome == "done" else None,
        "switches": list(cell.trace.switches) if cell.trace else [],
        "steps": len(cell.trace) if cell.trace else 0,
        "facts": _cell_facts(cell),
    }
    return f'{_json(about)[:-1]},"scores":[{",".join(scores)}]}}'


def _cell_score(score: Score) -> str:
    value = score.value if score.value is not None and math.isfinite(score.value) else None
    about = _about_score(score.metric.name, score.metric.version, score.reason, score.reference)
    number = "null" if value is None else repr(float(value))
    return f'{about},"value":{number},"frames":{_frames(score.per_frame)}}}'


@lru_cache(maxsize=4096)
def _about_score(name: str, version: int, reason: str, reference: str | None) -> str:
    """What many cells' scores share, the object's end left open."""
    facts = [("metric", f"{name}, version {version}"), ("reference's sha256", reference or "none")]
    return _json({"name": name, "reason": reason, "facts": facts})[:-1]


def _frames(values: Sequence[float]) -> str:
    """As JSON, the largest with five significant digits and the others with as many decimals.

    Most of a large page's bytes, and of the time that writing it takes: hence no loop.
    """
    if not values:
        return "[]"
    numbers = np.asarray(values, np.float64)
    largest = float(np.abs(numbers).max())  # not finite if any is not
    if not math.isfinite(largest):
        return _json([_rounded(x) for x in values])
    digits = 4 - math.floor(math.log10(largest)) if largest else 0
    return to_json(np.round(numbers, min(digits, 300)).tolist()).decode()


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
    facts: Facts = [("method", row.label), ("quantity", column.own_note(row.method_id) or column.title)]
    if value.value is not None:
        facts.append(("mean", f"{value.value:.6g} {column.marked_unit}".strip()))
        facts += _interval(value)
        facts.append(("over", f"{counted(value.n, 'video')} of {counted(value.clusters, 'prompt')}"))
    difference = _difference(row, value)
    if difference is not None and difference.value is not None:
        facts.append(("minus the reference", f"{fixed(difference.value, 3)} {difference.column.unit}"))
        facts += _interval(difference)
    if value.best:
        facts.append(("best", "the best, or not told from it"))
    if value.pooled:
        facts.append(("not ranked", "the estimate rests on step times of several jobs"))
    if value.outcome != "done" or value.reason:
        facts.append((value.outcome if value.outcome != "done" else "note", value.reason))
    return [*facts, ("protocol", value.protocol), ("device", run.device)]


def _interval(value: Value) -> Facts:
    if value.low is None or value.high is None:
        return [("no error", value.no_error)] if value.no_error else []
    how = "cluster bootstrap" if value.column.kind in ("total", "difference") else "t"
    low, high = (fixed(end, 4 if abs(end) < 10 else 2) for end in (value.low, value.high))
    return [("95 % interval", f"{low} to {high}, {how} over prompts")]


def _times(run: RunRecord) -> tuple[str, str]:
    """Where latencies come from; an imported run without any has no such line."""
    if run.source == "imported":
        return "latencies", "as told, not measured here" if run.timing == "exclusive" else ""
    if run.alone is None:
        return (
            "step times",
            "of the sweep itself (est.)" if run.timing == "shared" else "of a pass of its own",
        )
    rounds = f"{run.alone.rounds} round{'s' if run.alone.rounds > 1 else ''}"
    return "step times", f"of a pass of its own, each method alone: {rounds}, begun {run.alone.began}"


def protocol_facts(run: RunRecord, cells: Sequence[CellRecord]) -> Facts:
    """What the numbers of this run share, and the software of every command that made some of them."""
    family = _family(run)
    facts: Facts = [("protocol", run.protocol), ("experiment", run.experiment), ("run", run.run)]
    # the device that was asked for is no fact of the numbers; that which computed them is below
    facts += [(key.replace("_", " "), _words(value)) for key, value in family.items() if key != "device"]
    facts += [
        ("prompts and seeds", legend.extent(run)),
        _times(run),
        ("device", f"{run.device}, {counted(run.threads, 'thread')}"),
        ("commit", legend.code_names(run, cells)),
        ("packages", ", ".join(f"{k} {v}" for k, v in legend.versions(run, cells).items())),
        ("command", " ".join(run.asked)),
        ("started", run.started),
        *_later_commands(run),
    ]
    return [(term, words) for term, words in facts if words]


def _later_commands(run: RunRecord) -> Facts:
    """The commands after the first; of the many jobs of an array only how many there were."""
    later = run.later_jobs
    if len(later) > MOST_COMMANDS:
        return [("later commands", f"{len(later)}, the last of them started {later[-1].started}")]
    return [(f"later command, {job.started}", " ".join(job.asked)) for job in later]


def _family(run: RunRecord) -> Mapping[str, Any]:
    family = run.resolved.get("family")
    return family if isinstance(family, Mapping) else {}


def _words(value: Any) -> str:
    """A setting for readers, without the parts of it that are not set; empty where none is."""
    if isinstance(value, Mapping):
        parts = ((key, _words(inner)) for key, inner in value.items())
        return ", ".join(f"{str(key).replace('_', ' ')} {words}" for key, words in parts if words)
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(_words, value)))
    return "" if value is None else str(value).strip()


# The static part


def html(
    run: RunRecord,
    cells: Sequence[CellRecord],
    tables: Tables,
    figures: Sequence[Figure],
    found: Sequence[Method],
    more_notes: Sequence[str] = (),
    paper: str = "",
) -> str:
    """The page's text; every word from the records is escaped.  paper: the section about the paper."""
    prompts = _prompts(run, cells)
    hero, notes = _hero(figures), (*legend.own(run), *table_notes(tables.main), *more_notes)
    template = Template((ASSETS / "page.html").read_text("utf-8"))
    return template.substitute(
        title=escape(run.experiment),
        lead=escape(" · ".join([f"family {run.family}", *legend.made_on(run, cells)])),
        verdicts="\n".join(f"<li>{escape(line)}</li>" for line in verdicts(run, cells, tables.main)),
        warnings="\n".join(f'<p class="warning">{escape(w)}</p>' for w in legend.warnings(run)),
        table=table_html(tables.main, "table"),
        notes="\n".join(f"<li>{escape(note)}</li>" for note in notes),
        dimensions=_dimensions_html(tables.dimensions),
        hero=figure_html(hero, lazy=False) if hero else "",
        figures="\n".join(figure_html(f) for f in _by_lack(figures) if f is not hero),
        prompts=escape(counted(len(prompts), "prompt")),
        protocol="\n".join(
            f"<div><dt>{escape(term)}</dt><dd>{escape(words)}</dd></div>"
            for term, words in protocol_facts(run, cells)
            if words
        ),
        started=escape(run.started),
        paper=paper,
        paper_link='<a href="#paper">Paper</a>' if paper else "",
    )


def paper_html(paper: Paper, folder: Path) -> str:
    """The section that leads from RUN/report.html to the paper's page: which tables have numbers."""
    link = escape(quote(os.path.relpath(paper.page, folder)))
    items = "\n".join(
        f'<li><a href="{link}#{escape(place)}">{escape(name)}</a>: {escape(words)}</li>'
        for place, name, words in paper.summary
    )
    return (
        '<section id="paper" aria-labelledby="paper-title">\n<h2 id="paper-title">Beside the paper</h2>\n'
        f'<p class="hint">The published numbers of arXiv 2505.19151 and these runs\' own: '
        f'<a href="{link}">every table</a>. Quoted, never ranked together.</p>\n'
        f'<ul class="notes">\n{items}\n</ul>\n</section>'
    )


def table_html(table: Sequence[Row], name: str) -> str:
    """A table; each number a button that the script gives its protocol, `name,row,column`.

    Scale rows have a body of their own, so that sorting leaves them where they are.
    """
    every = list(zip(*(row.values for row in table), strict=True))
    digits = {values[0].column: printed.digits_of(table, values) for values in every}
    columns = [values for values in every if values[0].column.kind != "difference"]
    heads = "".join(
        f'<th scope="col" class="{c.group}" aria-sort="none"><button type="button" title="{escape(c.note)}">'
        f"{escape(c.heading)}{_arrow(c.higher_is_better)}"
        f"<small>{escape(c.marked_unit)}</small></button></th>"
        for c in (values[0].column for values in columns)
    )
    bodies: dict[bool, list[str]] = {False: [], True: []}
    for r, row in enumerate(table):
        numbers = "".join(
            _number_html(v, digits[v.column], f"{name},{r},{c}", _difference_html(row, v, digits))
            for c, v in enumerate(row.values)
            if v.column.kind != "difference"
        )
        kind = ' class="reference"' if row.is_reference else ""
        bodies[row.is_scale].append(f'<tr{kind}><th scope="row">{escape(row.label)}</th>{numbers}</tr>')
    method = '<th scope="col" aria-sort="none"><button type="button">method</button></th>'
    lines = [f"<thead><tr>{method}{heads}</tr></thead>", "<tbody>", *bodies[False], "</tbody>"]
    lines += ['<tbody class="scale">', *bodies[True], "</tbody>"] if bodies[True] else []
    return "\n".join(lines)


def _dimensions_html(table: Sequence[Row]) -> str:
    """The single dimensions, folded; nothing where there are none."""
    if not table[0].values:
        return ""
    notes = "\n".join(f"<li>{escape(note)}</li>" for note in table_notes(table))
    return (
        f'<details class="more"><summary>Single dimensions ({len(table[0].values)})</summary>\n'
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of single dimensions">\n'
        f'<table id="dimensions">\n{table_html(table, "dimensions")}\n</table>\n</div>\n'
        f'<ul class="notes">\n{notes}\n</ul></details>'
    )


def _arrow(higher: bool | None) -> str:
    if higher is None:
        return ""
    arrow, words = ("↑", "higher is better") if higher else ("↓", "lower is better")
    return f'&nbsp;<abbr title="{words}">{arrow}</abbr>'


def _difference(row: Row, value: Value) -> Value | None:
    """A total's distance from the reference's; none for other columns."""
    if value.column.kind != "total":
        return None
    return next((v for v in row.values if v.column.key == f"{value.column.key}_difference"), None)


def _difference_html(row: Row, value: Value, digits: Mapping[Column, int]) -> str:
    """`Δ −0.8 [−1.5, −0.1]` below a total: one column for both keeps the table narrow."""
    found = _difference(row, value)
    if found is None or found.value is None:
        return ""
    return f'<small class="delta">Δ\u2009{escape(shown(found, digits[found.column]))}</small>'


def _number_html(value: Value, digits: int, place: str, below: str = "") -> str:
    number, _, error = shown(value, digits).partition(" ±")
    sort = "" if value.value is None else repr(value.value)
    mark = f'<i class="mark" title="{escape(value.outcome)}">†</i>' if value.footnote else ""
    tail = f" <small>±{escape(error)}</small>" if error else ""
    best = ' class="best"' if value.best else ""
    return (
        f'<td{best} data-sort="{sort}"><button type="button" class="number" data-place="{place}">'
        f"{escape(number)}{mark}{tail}{below}</button></td>"
    )


def table_notes(table: Sequence[Row]) -> list[str]:
    """What stands below the table: how to read it, then every reason with whom it concerns."""
    concerned: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in table:
        for value in row.values:
            if value.footnote and value.column.kind != "difference":
                concerned[value.footnote][value.column.heading].append(row.label)
    reasons = [f"† {_whom(heads, len(table))}: {reason}" for reason, heads in concerned.items()]
    return [*legend.below(table, "bold"), *reasons]


def _whom(heads: Mapping[str, Sequence[str]], rows: int) -> str:
    """As in `PSNR, SSIM of small; PAB 8`."""
    labels = list(dict.fromkeys(label for of_head in heads.values() for label in of_head))
    return ", ".join(heads) + ("" if len(labels) == rows else f" of {'; '.join(labels)}")


def _hero(figures: Sequence[Figure]) -> Figure | None:
    """The picture beside the verdicts: speedup against PSNR, or against what there is."""
    drawn = [f for f in figures if f.name.startswith("speedup") and not f.missing]
    return next((f for f in drawn if f.name == "speedup_psnr"), drawn[0] if drawn else None)


def _by_lack(figures: Sequence[Figure]) -> list[Figure]:
    """The figures; those that lack the same thing as one, with all their titles."""
    found: dict[str, Figure] = {}
    for own in figures:
        key = own.missing or own.name
        found[key] = replace(found[key], title=f"{found[key].title}; {own.title}") if key in found else own
    return list(found.values())


def figure_html(figure: Figure, lazy: bool = True, where: str = "report/figures") -> str:
    """A figure of the folder `where` with its caption; the one at the top, not lazy, has it folded."""
    title = escape(figure.title)
    if figure.missing:
        return (
            f'<figure class="missing" id="figure-{escape(figure.name)}"><h3>{title}</h3>'
            f"<p>Not drawn: {escape(figure.missing)}.</p></figure>"
        )
    loading, caption, heading = "lazy" if lazy else "eager", escape(figure.caption), "h3" if lazy else "h2"
    if not lazy:
        caption = f"<details><summary>What it shows</summary>{caption}</details>"
    name, (width, height) = re.sub(r"[^\w.-]", "_", figure.name), figure.size
    return (
        f'<figure id="figure-{name}"><{heading}>{title}</{heading}>'
        f'<img src="{where}/{name}.png" width="{width}" height="{height}" loading="{loading}" '
        f'alt="{title}. {escape(figure.caption)}">'
        f'<figcaption>{caption} <a href="{where}/{name}.pdf">PDF</a></figcaption></figure>'
    )
