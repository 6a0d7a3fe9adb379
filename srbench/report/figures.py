"""Figures from records alone, as PNG and PDF with vector text, one column (3.3 in) wide.

A figure that lacks its data is not drawn and says why. Meaning never hangs on colour
alone: every role has its own marker, every stage its own hatch, every curve its own dashes.
"""

from __future__ import annotations

import math
import os
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from srbench.report.latency import cell_latency, stage_seconds, work_seconds
from srbench.report.roles import Role
from srbench.report.values import Column, Row, Value
from srbench.store.records import CellRecord, RunRecord

if TYPE_CHECKING:  # matplotlib takes most of a second to import, and the table alone needs none of it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

WIDTH = 3.3  # inches, one column
LABEL = 40  # letters of a label in a figure
NO_SIMILARITY = "no metric in the records compares a video with the reference's"
CURVES = 6  # prompts, or methods, that one panel can show apart
ROLES: dict[Role, tuple[str, str, str]] = {  # marker, colour (Okabe and Ito's), words
    "reference": ("*", "#000000", "reference"),
    "small": ("s", "#D55E00", "small alone"),
    "fewer": ("D", "#E69F00", "fewer steps"),
    "adaptive": ("o", "#0072B2", "adaptive switch"),
    "fixed": ("^", "#009E73", "fixed switch"),
    "other": ("v", "#A05195", "other"),
    "scale": ("_", "#000000", "scale"),
}
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)), (0, (2.5, 1)), (0, (8, 2, 1, 2, 1, 2)))
CURVE_COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#A05195", "#8C6D00")
STAGES = {  # name → colour and hatch, light and dark in turn so that greyscale parts them
    "encode": ("#F0E442", ""),
    "large": ("#0072B2", ""),
    "small": ("#A6D5F0", "////"),
    "other model": ("#A05195", "...."),
    "hand over": ("#000000", ""),
    "decode": ("#E69F00", "xxxx"),
    "as told": ("#777777", ""),  # of imported videos, whole
}
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.0,
    "hatch.linewidth": 0.4,
    "pdf.fonttype": 42,  # text stays text
    "text.parse_math": False,  # a label may hold a dollar sign
    "savefig.dpi": 300,
}


@dataclass(frozen=True)
class Figure:
    """What was drawn, or why it was not.

    name: its files are RUN/figures/<name>.png and .pdf.  caption: what is shown, over how
    many videos, and what is left out.  missing: the reason, empty where it was drawn.
    size: of the PNG in pixels, (0, 0) where it was not drawn.
    """

    name: str
    title: str
    caption: str
    missing: str = ""
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, eq=False)
class Method:
    """A row of the table with the cells behind it and its role in the comparison."""

    row: Row
    path: Sequence[Mapping[str, Any]]
    cells: tuple[CellRecord, ...]

    @property
    def role(self) -> Role:
        return self.row.role

    @property
    def label(self) -> str:
        return short(self.row.label)

    @property
    def until(self) -> Mapping[str, Any]:
        """The first segment's switch rule as it was resolved."""
        return (self.path[0].get("until") if self.path else None) or {}


class _LackError(Exception):
    """The figure lacks its data; the message says which."""


Drawn = tuple["Canvas", str]


def draw(folder: Path, run: RunRecord, cells: Sequence[CellRecord], table: Sequence[Row]) -> list[Figure]:
    """Write all figures into `folder`, and say of each what it shows or why it is missing.

    table: report.table.rows(run, cells).  A file of an earlier report that can't be drawn
    now is removed, so that the folder never shows what the records don't say.
    """
    import matplotlib as mpl

    every = methods(run, cells, table)
    found = [m for m in every if m.role != "scale"]
    scale = [m for m in every if m.role == "scale"]
    plots: list[tuple[str, str, Callable[[], Drawn]]] = [
        *_similarity_plots(found, scale),
        ("change", "Change per step, and its difference", lambda: _change(found)),
        ("distribution", "Similarity: adaptive against fixed switch", lambda: _distribution(found)),
        ("switch_steps", "Switch step over δ", lambda: _switch_steps(found)),
        ("latency", "Latency by stage", lambda: _latency(run, found)),
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        return [_make(folder, *plot, " · ".join(run.warnings)) for plot in plots]


def methods(run: RunRecord, cells: Iterable[CellRecord], table: Sequence[Row]) -> list[Method]:
    """The table's rows in their order, each with its done cells and its role."""
    done: dict[str, list[CellRecord]] = defaultdict(list)
    paths: dict[str, Sequence[Mapping[str, Any]]] = {m.id: m.path for m in run.methods}
    for cell in cells:
        paths.setdefault(cell.method_id, cell.path)
        if cell.outcome == "done":
            done[cell.method_id].append(cell)
    return [Method(row, paths.get(row.method_id, []), tuple(done[row.method_id])) for row in table]


def short(label: str, letters: int = LABEL) -> str:
    """A label cut to `letters`, on one line.

    >>> short("a" * 9, 5)
    'aaaa…'
    """
    text = " ".join(label.split())
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _wrapped(label: str, width: int) -> str:
    """A label on at most two lines."""
    return textwrap.fill(short(label, 2 * width - 4), width, max_lines=2, placeholder="…")


def _make(folder: Path, name: str, title: str, plot: Callable[[], Drawn], warning: str) -> Figure:
    files = [folder / f"{name}.{kind}" for kind in ("png", "pdf")]
    try:
        canvas, caption = plot()
    except _LackError as lack:
        for file in files:
            file.unlink(missing_ok=True)
        return Figure(name, title, "", str(lack))
    if warning:  # a figure travels without its page
        text = textwrap.fill(short(f"Warning: {warning}", 130), 66)
        canvas.suptitle(text, fontsize=6, color="#A02000", fontweight="bold")
    for file in files:
        _save(canvas, file)
    width, height = canvas.get_size_inches() * STYLE["savefig.dpi"]
    return Figure(name, title, caption, size=(int(width), int(height)))


def _save(canvas: Canvas, file: Path) -> None:
    partial = file.with_name(f".{os.getpid()}-{file.name}")
    # No date and no version inside: the same records give the same bytes.
    nothing = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    canvas.savefig(partial, format=file.suffix[1:], metadata=nothing[file.suffix[1:]])
    os.replace(partial, file)


def _canvas(height: float, rows: int = 1) -> tuple[Canvas, list[Axes]]:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
    axes = canvas.subplots(rows, 1, sharex=rows > 1, squeeze=False)
    return canvas, list(axes[:, 0])


# Speedup against similarity


def _columns(table: Iterable[Row], kind: str) -> list[Column]:
    """The columns of a kind, in the table's order."""
    return list(dict.fromkeys(v.column for row in table for v in row.values if v.column.kind == kind))


def _similarity_plots(
    found: Sequence[Method], scale: Sequence[Method]
) -> list[tuple[str, str, Callable[[], Drawn]]]:
    rows = [m.row for m in found]
    columns = _columns(rows, "similarity")
    totals = [c for c in _columns(rows, "total") if c.key.endswith("/total")]
    totals = [c for c in totals if any(row[c.key].value is not None for row in rows)]
    plots = [] if columns else [("speedup", "Speedup against similarity", _no_similarity)]

    def plot(column: Column) -> Callable[[], Drawn]:
        return lambda: _pareto(found, scale, column)

    return plots + [
        (f"speedup_{c.key.replace('/', '_')}", f"Speedup against {c.heading}", plot(c))
        for c in (*columns, *totals)
    ]


def _no_similarity() -> Drawn:
    raise _LackError(NO_SIMILARITY)


@dataclass(frozen=True)
class _Point:
    method: Method
    x: Value
    y: Value

    @property
    def at(self) -> tuple[float, float]:
        assert self.x.value is not None and self.y.value is not None
        return self.x.value, self.y.value


def _pareto(found: Sequence[Method], scale: Sequence[Method], column: Column) -> Drawn:
    others = [m for m in found if m.role != "reference"]
    pairs = [_Point(m, m.row["speedup"], m.row[column.key]) for m in others]
    points = [p for p in pairs if p.x.value is not None and p.y.value is not None]
    if not points:
        raise _LackError(f"no method has both a speedup and {column.heading}")
    canvas, (axes,) = _canvas(2.35 + 0.13 * math.ceil(len(points) / 2))
    _frame(axes, points)
    outside = _scale_lines(axes, scale, column, [p.at for p in points])
    for point in points:
        _mark(axes, point)
    front = sorted((p.at for p in points if not _beaten(p, points)), reverse=True)
    axes.plot(*zip(*front, strict=True), color="0.55", lw=0.8, zorder=1)
    axes.axvline(1, color="black", lw=0.6, ls=(0, (1, 1.5)), zorder=0)
    axes.set_xlabel(_axis_label(points[0].x.column))
    axes.set_ylabel(_axis_label(column))
    _letters(canvas, axes, points)
    return canvas, _pareto_caption(points, pairs, column) + outside


def _axis_label(column: Column) -> str:
    """As in `PSNR (dB) → better` or `speedup (× est.)`."""
    arrow = {None: "", True: ", higher is better", False: ", lower is better"}[column.higher_is_better]
    unit = f" ({column.marked_unit.strip()})" if column.marked_unit.strip() else ""
    return f"{column.heading}{unit}{arrow}"


def _frame(axes: Axes, points: Sequence[_Point]) -> None:
    """Limits that fit the points, not the whiskers: two prompts' intervals would flatten all."""
    xs, ys = zip(*(p.at for p in points), strict=True)
    for values, limit in (((*xs, 1.0), axes.set_xlim), (ys, axes.set_ylim)):
        low, high = min(values), max(values)
        pad = 0.14 * (high - low or abs(high) or 1.0)
        limit(low - pad, high + pad)


def _scale_lines(
    axes: Axes, scale: Sequence[Method], column: Column, points: Sequence[tuple[float, float]]
) -> str:
    """A faint line for each scale row that is near the points; the caption's words on the others."""
    low, high = axes.get_ylim()
    reach, outside, drawn = 0.6 * (high - low), [], []
    for method in scale:
        value = method.row[column.key].value
        if value is None:
            continue
        if not low - reach <= value <= high + reach:
            outside.append(f"{method.label} at {value:.4g} {column.unit}".strip())
            continue
        drawn.append(value)
        axes.axhline(value, color="0.6", lw=0.6, ls=(0, (4, 2)), zorder=0)
        # on the right, unless a point lies there
        first, last = axes.get_xlim()
        left = any(
            x > first + 0.6 * (last - first) and abs(y - value) < 0.1 * (high - low) for x, y in points
        )
        axes.annotate(
            method.label,
            (0.01 if left else 0.99, value),
            xycoords=("axes fraction", "data"),
            ha="left" if left else "right",
            va="bottom",
            fontsize=5.5,
            color="0.35",
        )
    pad = 0.06 * (high - low)
    axes.set_ylim(min([low, *(v - pad for v in drawn)]), max([high, *(v + pad for v in drawn)]))
    said = " Dashed: scale rows, no rivals." if drawn else ""
    return said + (f" Scale rows outside the frame: {'; '.join(outside)}." if outside else "")


def _mark(axes: Axes, point: _Point) -> None:
    marker, colour, _ = ROLES[point.method.role]
    (x, y), across, up = point.at, _interval(point.x), _interval(point.y)
    if across:
        axes.plot(across, [y, y], color=colour, lw=0.6, alpha=0.55, zorder=2)
    if up:
        axes.plot([x, x], up, color=colour, lw=0.6, alpha=0.55, zorder=2)
    axes.plot([x], [y], marker, color=colour, mec="white", mew=0.5, ms=5.5, zorder=3)


def _interval(value: Value) -> list[float]:
    return [] if value.low is None or value.high is None else [value.low, value.high]


def _beaten(point: _Point, points: Sequence[_Point]) -> bool:
    """Is another at least as fast and as similar, and better in one of them?"""
    sign = -1 if point.y.column.higher_is_better is False else 1
    x, y = point.at
    return any(
        (q.at[0] >= x and sign * q.at[1] >= sign * y) and q.at != point.at for q in points if q is not point
    )


def _letters(canvas: Canvas, axes: Axes, points: Sequence[_Point]) -> None:
    """A letter beside each point, and what the letters mean below, in two columns."""
    canvas.draw_without_rendering()  # so that the layout, and with it every pixel, is known
    scale = 72 / canvas.dpi
    at = [tuple(scale * c for c in axes.transData.transform(p.at)) for p in points]
    for i, (point, (dx, dy)) in enumerate(zip(points, place(at), strict=True)):
        axes.annotate(
            _letter(i), point.at, (dx, dy), textcoords="offset points", ha="center", va="center", zorder=4
        )
    handles = []
    for i, point in enumerate(points):
        marker, colour, _ = ROLES[point.method.role]
        label = f"{_letter(i)}  {_wrapped(point.method.row.label, 26)}"
        handles += axes.plot([], [], marker, color=colour, mec="white", mew=0.5, ms=5, label=label)
    canvas.legend(
        handles=handles, loc="outside lower left", ncols=2, handletextpad=0.2, columnspacing=1, borderpad=0
    )


def _letter(i: int) -> str:
    """A … z, then aa, ab, …"""
    return (ascii_lowercase[i // 26 - 1] if i >= 26 else "") + ascii_lowercase[i % 26]


def place(at: Sequence[tuple[float, ...]], away: float = 7.0) -> list[tuple[float, float]]:
    """An offset for each point's letter, all in pt, farthest from other points and letters.

    >>> place([(0, 0), (10, 0)])[0][0] < 0
    True
    """
    diagonal = away * math.sqrt(0.5)
    tries = [(s * d, 0.0) for s, d in product((1, -1), (away,))]
    tries += [(0.0, away), (0.0, -away)] + [
        (a * diagonal, b * diagonal) for a, b in product((1, -1), (1, -1))
    ]
    tries += [(1.8 * x, 1.8 * y) for x, y in tries]  # for crowds
    taken = [(p[0], p[1]) for p in at]
    offsets = []
    for x, y in ((p[0], p[1]) for p in at):

        def clearance(offset: tuple[float, float], x: float = x, y: float = y) -> float:
            spot = (x + offset[0], y + offset[1])
            near = min((math.dist(spot, t) for t in taken if t != (x, y)), default=math.inf)
            return min(near, 2 * away) - 0.3 * math.hypot(*offset)  # near its own point, if it may

        best = max(tries, key=clearance)
        offsets.append(best)
        taken.append((x + best[0], y + best[1]))
    return offsets


def _pareto_caption(points: Sequence[_Point], pairs: Sequence[_Point], column: Column) -> str:
    clusters = max(p.y.clusters for p in points)
    parts = [
        f"Means over {_count(clusters, 'prompt')}; bars are 95 % intervals "
        f"({'cluster bootstrap' if column.kind == 'total' else 't'} over prompts) and may leave the frame."
        if clusters > 1
        else "One prompt only, so there are no intervals.",
        _markers(points),
        "Grey: the methods that no other beats in both means. Dotted: the reference's own speed.",
    ]
    if points[0].x.column.estimated:
        parts.append("Speedups are estimates from the step times of a shared run.")
    for who, words in (("small", "The small model alone"), ("fewer", "The large model with fewer steps")):
        if not any(p.method.role == who for p in points):
            parts.append(f"{words} is not in it: the run has no such number.")
    gone = [p for p in pairs if p not in points]
    if gone:
        parts.append(f"Not drawn, for lack of a number: {'; '.join(p.method.label for p in gone)}.")
    return " ".join(parts)


def _markers(points: Sequence[_Point]) -> str:
    """What the markers mean, of the roles that are there."""
    shapes = {"s": "squares", "D": "diamonds", "o": "circles", "^": "triangles up", "v": "triangles down"}
    roles = dict.fromkeys(p.method.role for p in points)
    return f"{'; '.join(f'{shapes[ROLES[r][0]]}: {ROLES[r][2]}' for r in roles)}.".capitalize()


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"


# D and its difference


def _change(found: Sequence[Method]) -> Drawn:
    rules = [m.until for m in found if m.role == "adaptive" and "delta" in m.until]
    signal = str(rules[0].get("signal", "model_output")) if rules else "model_output"
    curves, total = _curves(found, signal)
    canvas, (top, bottom) = _canvas(3.0, rows=2)
    top.set_prop_cycle(None)
    for (name, change), dash, colour in zip(curves, DASHES, CURVE_COLOURS, strict=False):
        steps = np.arange(1, len(change) + 1)
        top.plot(steps, change, ls=dash, color=colour, label=name)
        bottom.plot(steps[1:], change[:-1] - change[1:], ls=dash, color=colour)
    deltas = sorted({float(r["delta"]) for r in rules})
    for delta in deltas:
        bottom.axhline(delta, color="0.45", lw=0.6, ls=(0, (1, 1)))
        bottom.annotate(
            f"δ={delta:g}",
            (1, delta),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=6,
        )
    bottom.axhline(0, color="0.45", lw=0.6)
    bottom.set_ylim(*_difference_limits([c for _, c in curves], deltas))
    early = max((int(r.get("min_steps", 0)) for r in rules), default=0)
    for axes in (top, bottom) if early else ():
        axes.axvspan(0, early, color="0.92", zorder=0, lw=0)
    top.set(ylabel="D", xlim=(0, None))
    bottom.set(ylabel="previous D − D", xlabel="step τ")
    top.legend(handlelength=3, labelspacing=0.25)
    note = f" Grey band: the first {_count(early, 'step')}, in which the rule may not fire." if early else ""
    return canvas, (
        f"D of the signal {signal.replace('_', ' ')} on the reference's path, for the first "
        f"{len(curves)} of {_count(total, 'prompt')} (first seed), and how much it fell from the step "
        f"before. Dotted: each δ of the run.{note} Early falls may leave the frame."
    )


def _curves(found: Sequence[Method], signal: str) -> tuple[list[tuple[str, np.ndarray]], int]:
    """(name, D per step) of the reference's first seed, first prompts in order; how many there are."""
    first: dict[int, CellRecord] = {}
    for cell in (c for m in found if m.role == "reference" for c in m.cells):
        steps = cell.trace.steps if cell.trace else ()
        if len(steps) >= 3 and all(s.change and signal in s.change for s in steps[1:]):
            first.setdefault(cell.prompt_index, cell)
    if not first:
        raise _LackError(f"no trace of the reference has D of the signal {signal}")
    chosen = [first[i] for i in sorted(first)[:CURVES]]
    curves = [(f"prompt {c.prompt_index}", c.trace.change(signal)) for c in chosen if c.trace]
    return curves, len(first)


def _difference_limits(curves: Sequence[np.ndarray], deltas: Sequence[float]) -> tuple[float, float]:
    """All δ, and nine tenths of the falls: the first steps are far larger and would hide the rest."""
    falls = np.concatenate([-np.diff(c) for c in curves])
    bulk = np.nanquantile(np.abs(falls), 0.9) if np.isfinite(falls).any() else 0.0
    high = max(float(bulk), 1.25 * max(deltas, default=0.0)) or 1.0
    return -high, high


# Adaptive against fixed


def _distribution(found: Sequence[Method]) -> Drawn:
    columns = _columns([m.row for m in found], "similarity")
    if not columns:
        raise _LackError(NO_SIMILARITY)
    column = next((c for c in columns if c.key.partition("/")[0] == "psnr"), columns[0])
    chosen = [(m, _scores(m, column.key)) for m in _adaptive_and_rivals(found)]
    chosen = [(m, s) for m, s in chosen if s]
    if {m.role for m, _ in chosen} != {"adaptive", "fixed"}:
        raise _LackError(f"it needs {column.heading} of both an adaptive and a fixed switch")
    canvas, (axes,) = _canvas(2.2 + 0.12 * len(chosen))
    for i, (method, scores) in enumerate(chosen):
        ordered, share = np.sort(scores), np.arange(1, len(scores) + 1) / len(scores)
        label = f"{method.label} (mean {np.mean(scores):.2f})"
        colour = ROLES[method.role][1] if method.role == "adaptive" else "0.35"
        axes.step(
            [ordered[0], *ordered],
            [0, *share],
            where="post",
            ls=DASHES[i % len(DASHES)],
            color=colour,
            label=label,
        )
    axes.set(xlabel=_axis_label(column), ylabel="share of videos at or below", ylim=(0, 1.02))
    canvas.legend(loc="outside lower left", handlelength=3, borderpad=0)
    counts = sorted({len(s) for _, s in chosen})
    return canvas, (
        f"Cumulative distribution of {column.heading} over {' to '.join(map(str, counts))} videos a method. "
        "Blue: adaptive switches; grey: to each, the fixed switch that is nearest to its mean switch step."
    )


def _adaptive_and_rivals(found: Sequence[Method]) -> list[Method]:
    """Up to three adaptive methods, then the fixed switches nearest to their mean step."""
    adaptive = [m for m in found if m.role == "adaptive" and m.cells][: CURVES // 2]
    fixed = [m for m in found if m.role == "fixed" and _switches(m)]
    rivals: list[Method] = []
    for method in adaptive:
        own = _switches(method)
        if own and fixed:
            near = min(fixed, key=lambda f: abs(np.mean(_switches(f)) - np.mean(own)))
            rivals += [near] if near not in rivals else []
    return [*adaptive, *rivals]


def _scores(method: Method, metric: str) -> list[float]:
    found = (s for c in method.cells for s in c.scores if s.metric.name == metric)
    return [s.value for s in found if s.outcome == "done" and s.value is not None and math.isfinite(s.value)]


def _switches(method: Method) -> list[int]:
    """Steps done before the first change of model, of the videos that switched."""
    return [c.trace.switches[0] for c in method.cells if c.trace and c.trace.switches]


def _switch_steps(found: Sequence[Method]) -> Drawn:
    chosen = sorted(
        (m for m in found if m.role == "adaptive" and "delta" in m.until and _switches(m)),
        key=lambda m: float(m.until["delta"]),
    )
    if not chosen:
        raise _LackError("no method with a δ switched models in a video of this run")
    canvas, (axes,) = _canvas(2.2)
    steps, places = [_switches(m) for m in chosen], np.arange(1, len(chosen) + 1)
    axes.boxplot(
        steps,
        positions=places,
        widths=0.5,
        showfliers=False,
        medianprops={"color": ROLES["adaptive"][1], "lw": 1.4},
        boxprops={"lw": 0.7},
        whiskerprops={"lw": 0.7},
        capprops={"lw": 0.7},
    )
    for place_, found_ in zip(places, steps, strict=True):
        for step, many in Counter(found_).items():  # side by side, for equal steps would hide each other
            shift = (np.arange(min(many, 15)) - (min(many, 15) - 1) / 2) * 0.03
            axes.plot(place_ + shift, [step] * len(shift), ".", ms=2.5, color="0.3", zorder=3)
    deltas = [f"{float(m.until['delta']):g}" for m in chosen]
    names = deltas if len(set(deltas)) == len(deltas) else [textwrap.fill(m.row.label, 12) for m in chosen]
    axes.set_xticks(places, [f"{n}\nn = {len(s)}" for n, s in zip(names, steps, strict=True)])
    axes.set(xlabel="δ", ylabel="steps before the switch", ylim=(0, None))
    never = {m.label: len(m.cells) - len(s) for m, s in zip(chosen, steps, strict=True)}
    said = "; ".join(f"{n} of {label} never switched" for label, n in never.items() if n)
    return canvas, (
        "Box: quartiles and median; whiskers: the farthest within 1.5 box heights; dots: videos, "
        f"at most 15 a step. n: videos that switched.{f' {said}.' if said else ''}"
    )


# Latency by stage


def _latency(run: RunRecord, found: Sequence[Method]) -> Drawn:
    cells = [c for m in found for c in m.cells]
    work, stages = work_seconds(cells), stage_seconds(cells)
    seconds = {m: _mean_stages(m, work, stages) for m in found}
    drawn = [m for m in found if seconds[m]]
    if not drawn:
        raise _LackError("no cell recorded the times of its steps")
    canvas, (axes,) = _canvas(0.9 + 0.17 * len(drawn))
    places, left = np.arange(len(drawn)), np.zeros(len(drawn))
    for name, (colour, hatch) in STAGES.items():
        width = np.array([seconds[m].get(name, 0.0) for m in drawn])
        if width.any():
            axes.barh(
                places, width, 0.68, left, color=colour, hatch=hatch, edgecolor="white", lw=0.3, label=name
            )
            left += width
    for place_, total in zip(places, left, strict=True):
        axes.annotate(
            f"{total:.3g}", (total, place_), (2, 0), textcoords="offset points", va="center", fontsize=6
        )
    axes.set_yticks(places, [_wrapped(m.row.label, 26) for m in drawn], linespacing=0.9)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    estimated = run.timing != "exclusive"
    axes.set_xlabel(f"seconds a video{' (est.)' if estimated else ''}")
    canvas.legend(
        loc="outside upper left", ncols=6, columnspacing=0.9, handlelength=1.2, handletextpad=0.4, borderpad=0
    )
    gone = [m for m in found if m not in drawn]
    if not work:
        return canvas, "Mean over videos of what whoever made them told; not measured here."
    return canvas, _latency_caption(estimated, stages, gone)


def _latency_caption(estimated: bool, stages: Mapping[str, object], gone: Sequence[Method]) -> str:
    parts = ["Mean over videos of steps × the median time of their kind, by model, and the other stages."]
    parts += ["Estimates, from the step times of a shared run."] if estimated else []
    absent = [name for name in ("encode", "decode") if name not in stages]
    parts += [f"Without {' and '.join(absent)}, which no cell timed."] if absent else []
    parts += [f"Not drawn, for lack of times: {'; '.join(m.label for m in gone)}."] if gone else []
    return " ".join(parts)


def _mean_stages(method: Method, work: Mapping[str, Any], stages: Mapping[str, Any]) -> dict[str, float]:
    """Mean seconds of each of STAGES over the method's cells; empty where there are no times."""
    sums: dict[str, float] = defaultdict(float)
    count = 0
    # what takes equally long has one trace; an imported video has none, and is told apart
    one_of = {(id(cell.trace), cell.latency_seconds): cell for cell in method.cells}
    for kind, videos in Counter((id(cell.trace), cell.latency_seconds) for cell in method.cells).items():
        cell = one_of[kind]
        try:
            whole = cell_latency(cell, work, stages)
        except LookupError:
            continue
        count += videos
        for step in cell.trace.steps if cell.trace else ():
            sums[step.model if step.model in STAGES else "other model"] += videos * work[step.work].seconds
        for name in ("encode", "hand_over", "decode"):
            sums[name.replace("_", " ")] += videos * whole.get(name, 0.0)
        sums["as told"] += videos * whole.get("told", 0.0)
    return {name: total / count for name, total in sums.items()}
