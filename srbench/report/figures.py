"""A run's own figures, from its records alone.  One that lacks its data is not drawn and says why."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from srbench.analysis.latency import cell_latency, times
from srbench.analysis.values import Column, Row, Value
from srbench.report import switching
from srbench.report.drawing import (
    NO_SIMILARITY,
    ROLES,
    STYLE,
    Drawn,
    Figure,
    LackError,
    Method,
    axis_label,
    blank,
    columns_of,
    count,
    make,
    methods,
    short,
    wrapped,
)
from srbench.store.records import CellRecord, RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

__all__ = ["Figure", "Method", "draw", "methods", "place", "short"]
STAGES = {  # name → colour and hatch, light and dark in turn so that greyscale parts them
    "encode": ("#F0E442", ""),
    "large": ("#0072B2", ""),
    "small": ("#A6D5F0", "////"),
    "other model": ("#A05195", "...."),
    "hand over": ("#000000", ""),
    "decode": ("#E69F00", "xxxx"),
    "as told": ("#777777", ""),  # of imported videos, whole
}


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
        ("change", "Change per step, and its difference", lambda: switching.change(run, found)),
        ("distribution", "Similarity: adaptive against fixed switch", lambda: switching.distribution(found)),
        ("switch_steps", "Switch step over δ", lambda: switching.switch_steps(found)),
        ("latency", "Latency by stage", lambda: _latency(run, found)),
    ]
    if run.source == "imported":  # no steps are known of these videos
        plots = [plot for plot in plots if plot[0] not in ("change", "distribution", "switch_steps")]
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        return [make(folder, *plot, " · ".join(run.warnings)) for plot in plots]


# Speedup against similarity


def _similarity_plots(
    found: Sequence[Method], scale: Sequence[Method]
) -> list[tuple[str, str, Callable[[], Drawn]]]:
    rows = [m.row for m in found]
    # without the encoders' floors, which no method can be better in
    columns = [c for c in columns_of(rows, "similarity") if c.higher_is_better is not None]
    totals = [c for c in columns_of(rows, "total") if c.key.endswith("/total")]
    totals = [c for c in totals if any(row[c.key].value is not None for row in rows)]
    plots = [] if columns else [("speedup", "Speedup against similarity", _no_similarity)]

    def plot(column: Column) -> Callable[[], Drawn]:
        return lambda: _pareto(found, scale, column)

    return plots + [
        (f"speedup_{c.key.replace('/', '_')}", f"Speedup against {c.heading}", plot(c))
        for c in (*columns, *totals)
    ]


def _no_similarity() -> Drawn:
    raise LackError(NO_SIMILARITY)


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
        some = any(p.x.value is not None for p in pairs)
        raise LackError(f"no method has {f'both a speedup and {column.heading}' if some else 'a speedup'}")
    canvas, (axes,) = blank(2.35 + 0.13 * math.ceil(len(points) / 2))
    _frame(axes, points)
    outside = _scale_lines(axes, scale, column, [p.at for p in points])
    for point in points:
        _mark(axes, point)
    if not any(p.x.pooled for p in points):
        front = sorted((p.at for p in points if not _beaten(p, points)), reverse=True)
        axes.plot(*zip(*front, strict=True), color="0.55", lw=0.8, zorder=1)
    axes.axvline(1, color="black", lw=0.6, ls=(0, (1, 1.5)), zorder=0)
    axes.set_xlabel(axis_label(points[0].x.column))
    axes.set_ylabel(axis_label(column))
    _letters(canvas, axes, points)
    return canvas, _pareto_caption(points, pairs, column) + outside


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
        label = f"{_letter(i)}  {wrapped(point.method.row.label, 26)}"
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
        f"Means over {count(clusters, 'prompt')}; bars are 95 % intervals "
        f"({'cluster bootstrap' if column.kind == 'total' else 't'} over prompts) and may leave the frame."
        if clusters > 1
        else "One prompt only, so there are no intervals.",
        _markers(points),
        "No line joins the best: speedups rest on step times of several jobs."
        if any(p.x.pooled for p in points)
        else "Grey: the methods that no other beats in both means.",
        "Dotted: the reference's own speed.",
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


# Latency by stage


def _latency(run: RunRecord, found: Sequence[Method]) -> Drawn:
    known = times(run, [c for m in found for c in m.cells])
    work, stages = known.work, known.stages
    seconds = {m: _mean_stages(m, work, stages, known.elsewhere) for m in found}
    drawn = [m for m in found if seconds[m]]
    if not drawn:
        raise LackError("no cell recorded the times of its steps")
    canvas, (axes,) = blank(0.9 + 0.17 * len(drawn))
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
    axes.set_yticks(places, [wrapped(m.row.label, 26) for m in drawn], linespacing=0.9)
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


def _mean_stages(
    method: Method, work: Mapping[str, Any], stages: Mapping[str, Any], elsewhere: Collection[str]
) -> dict[str, float]:
    """Mean seconds of each of STAGES over the method's cells; empty where there are no times."""
    sums: dict[str, float] = defaultdict(float)
    count = 0
    # what takes equally long has one trace; an imported video has none, and is told apart
    one_of = {(id(cell.trace), cell.latency_seconds): cell for cell in method.cells}
    for kind, videos in Counter((id(cell.trace), cell.latency_seconds) for cell in method.cells).items():
        cell = one_of[kind]
        try:
            whole = cell_latency(cell, work, stages, elsewhere=elsewhere)
        except LookupError:
            continue
        count += videos
        for step in cell.trace.steps if cell.trace else ():
            sums[step.model if step.model in STAGES else "other model"] += videos * work[step.work].seconds
        for name in ("encode", "hand_over", "decode"):
            sums[name.replace("_", " ")] += videos * whole.get(name, 0.0)
        sums["as told"] += videos * whole.get("told", 0.0)
    return {name: total / count for name, total in sums.items()}
