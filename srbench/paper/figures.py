"""The SRDiffusion paper's figures (arXiv 2505.19151) from runs of one's own, and a few that it lacks.

Each is drawn from records alone; frames are taken from the videos of a run where these are there.
What the paper prints stands beside measured numbers only where the run is of the same family with
its real weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srbench.analysis.table import Tables
from srbench.paper import curves, frames, published
from srbench.paper.sources import Source, kind, note_of
from srbench.report import switching
from srbench.report.drawing import (
    STYLE,
    WIDTH,
    Drawn,
    Figure,
    LackError,
    Method,
    axis_label,
    count,
    make,
    short,
)
from srbench.store.records import CellRecord, RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

Given = tuple[RunRecord, Sequence[CellRecord], Tables]
# kinds of methods that a sheet shows, in the paper's order of rows
SIDE_BY_SIDE = ("reference", "small", "pab", "teacache", "srd", "srd+teacache")
WITH_SAGE = (*SIDE_BY_SIDE, "srd+teacache+sage")
LAYERED = ("reference", "small", "srd", "srd+teacache", "srd+teacache+sage")
PANELS = 4  # runs that one figure can show below each other


@dataclass(frozen=True)
class Plan:
    """A figure to be: how it is drawn of one run, or of several, and which run would have its data."""

    name: str
    title: str
    experiments: tuple[str, ...]
    of_one: Callable[[Source], Drawn] | None = None
    of_all: Callable[[Sequence[Source]], Drawn] | None = None

    def draw(self, folder: Path, sources: Sequence[Source]) -> list[Figure]:
        """One figure of all runs, or one of each run that has the data; else one that says what lacks."""
        if self.of_all is not None:
            plot = partial(self.of_all, sources)
            return [self._told(make(folder, self.name, self.title, plot, note_of(sources)))]
        assert self.of_one is not None
        made = []
        for source in sources:
            name = f"{self.name}{source.suffix}"
            title = f"{self.title}{f' · {source.suffix[1:]}' if source.suffix else ''}"
            made.append(make(folder, name, title, partial(self.of_one, source), note_of([source])))
        drawn = [f for f in made if not f.missing]
        if drawn:
            return drawn
        reasons = dict.fromkeys(f.missing for f in made)
        return [self._told(Figure(self.name, self.title, "", "; ".join(reasons) or "no run was given"))]

    def _told(self, figure: Figure) -> Figure:
        """With the command that makes the run it lacks."""
        if not figure.missing:
            return figure
        commands = " or ".join(f"`python -m srbench +experiment={e}`" for e in self.experiments)
        return Figure(self.name, self.title, "", f"{figure.missing}; {commands} makes a run that has it")


def draw(folder: Path, runs: Sequence[Given], places: Sequence[Path | None] = ()) -> list[Figure]:
    """Write the paper's figures into `folder`, and say of each what it shows or why it is missing.

    runs: record, cells and report.table.make(record, cells) of each.  places: the runs' own
    folders, in the same order, in which their videos lie; without them there are no frames.
    A figure of one run is made once for each run that has its data, with `-family` in its name
    where there are several runs.  Files of an earlier report are removed.
    """
    import matplotlib as mpl

    sources = sources_of(runs, places)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (f for plan in PLANS for k in ("png", "pdf") for f in folder.glob(f"{plan.name}*.{k}")):
        old.unlink()
    with mpl.rc_context(STYLE):
        return [figure for plan in PLANS for figure in plan.draw(folder, sources)]


def sources_of(runs: Sequence[Given], places: Sequence[Path | None]) -> list[Source]:
    """The runs with a word each that tells them apart in names of files."""
    folders = [*places, *[None] * (len(runs) - len(places))]
    records = [run for run, _, _ in runs]
    words = next(
        (w for w in _words(records) if len(set(w)) == len(w)), [str(i + 1) for i in range(len(runs))]
    )
    suffixes = [f"-{w}" if len(runs) > 1 else "" for w in words]
    return [
        Source.of(run, cells, tables, place, suffix)
        for (run, cells, tables), place, suffix in zip(runs, folders, suffixes, strict=True)
    ]


def _words(records: Sequence[RunRecord]) -> list[list[str]]:
    return [
        [r.family for r in records],
        [r.experiment for r in records],
        [f"{r.experiment}-{r.run}" for r in records],
    ]


# Videos side by side


def _rows(source: Source, kinds: Sequence[str]) -> list[Method]:
    """The run's method of each kind, in order; those that the run was not asked for are left out."""
    return [m for m in map(source.of_kind, kinds) if m is not None]


def _compared(source: Source, kinds: Sequence[str], among: frames.Narrow | None = None) -> Drawn:
    """SRDiffusion beside its rivals.  Raises LackError where the run has neither, or no videos."""
    rows = _rows(source, kinds)
    have = {kind(m) for m in rows if m.cells}
    if not {"reference", "srd"} <= have or not have & {"pab", "teacache"}:
        raise LackError("no run has the large model, SRDiffusion, and PAB or TeaCache on the large model")
    canvas, caption = _sheets(source, rows, among)
    absent = [k for k in kinds if k not in {kind(m) for m in rows}]
    names = {"pab": "PAB", "teacache": "TeaCache", "srd+teacache": "SRDiffusion with TeaCache"}
    names |= {"srd+teacache+sage": "SRDiffusion with TeaCache and SageAttention", "small": "the small model"}
    lacking = ", ".join(names.get(k, k) for k in absent)
    return canvas, caption + (f" Not in the run: {lacking}." if absent else "")


def _sheets(
    source: Source,
    rows: Sequence[Method],
    among: frames.Narrow | None = None,
    say: Callable[[Method], str] = lambda method: "",
) -> Drawn:
    """One sheet a drawn prompt; `say` adds a line to a row's name."""
    keys, total = frames.sample(source.videos, [m for m in rows if m.cells], among)
    named = [(_name(m, say(m)), m if m.cells else source.why(m)) for m in rows]
    many = (3 if len(keys) > 1 else 6) if source.is_square else 4
    sheets = [frames.sheet(source.videos, named, key, many) for key in keys]
    canvas = frames.grid(sheets, source.title, bool(note_of([source])))
    from_which = " of the longer half" if among else ""
    return canvas, (
        f"{many} frames a video in equal steps from the first to the last. "
        f"{frames.drawn_from(keys, total, from_which)}"
    )


def _name(method: Method, more: str) -> str:
    return "\n".join(part for part in (short(method.row.label, 60), more) if part)


def _long_prompts(source: Source) -> Drawn:
    return _compared(source, SIDE_BY_SIDE, frames.longest)


def _random_prompts(source: Source) -> Drawn:
    return _compared(source, WITH_SAGE)


def _own_prompts(source: Source) -> Drawn:
    suite = source.run.resolved.get("suite") or {}
    if suite.get("kind") != "prompts" and not source.run.experiment.startswith("fig10"):
        raise LackError("no run is of the experiment fig10 or of prompts of one's own")
    return _compared(source, SIDE_BY_SIDE)


def _layered(source: Source) -> Drawn:
    """Figure 5: what TeaCache and SageAttention add, with each row's speedup."""
    rows = _rows(source, LAYERED)
    if "srd+teacache+sage" not in {kind(m) for m in rows}:
        raise LackError(f"no run was asked for SRDiffusion with TeaCache and SageAttention{_printed_sage()}")
    canvas, caption = _sheets(source, rows, say=partial(_speedup, source))
    estimated = any(m.row["speedup"].column.estimated for m in rows)
    caption += " Below each name: its speedup over the large model, as measured in this run"
    caption += ", from step times of a shared run (est.)." if estimated else "."
    if source.is_papers:
        return (
            canvas,
            f"{caption} The paper's number is of one NVIDIA H20, this run's device is {source.run.device}.",
        )
    return canvas, f"{caption} Other models than the paper's, so its number does not stand here."


def _printed_sage() -> str:
    value = published.by_place()["figure 5", "wan21_480p", "srd_teacache_sage", "speedup"]
    return f" (the paper prints {value.text}{value.unit} for Wan 2.1 on one NVIDIA H20)"


def _speedup(source: Source, method: Method) -> str:
    value = method.row["speedup"]
    parts = [] if value.value is None else [f"{value.value:.2f}{value.column.marked_unit}"]
    if source.is_papers:
        printed = {m.path: m.method for m in published.methods() if m.setting == source.run.family}
        name = printed.get(published.signature(method.path), "")
        found = {
            v.text
            for v in published.values()
            if (v.setting, v.method, v.column) == (source.run.family, name, "speedup")
        }
        parts += [f"printed {' or '.join(sorted(found))}×"] if found else []
    return "\n".join(parts)


def _over_delta(source: Source) -> Drawn:
    """Figure 11: the large model, then SRDiffusion from the smallest δ to the largest."""
    adaptive = [m for m in source.adaptive() if m.cells]
    if len(adaptive) < 2:
        raise LackError("no run has SRDiffusion with two δ")
    rows = [*_rows(source, ("reference",)), *adaptive]
    return _sheets(source, rows, say=_mean_step)


def _mean_step(method: Method) -> str:
    value = method.row["switch_step"].value
    return "" if value is None else f"switch {value:.1f}"


# Several runs below each other


def _change(sources: Sequence[Source]) -> Drawn:
    """Figure 3: D, and how much it fell, of a few prompts of each run."""
    found, reasons = [], []
    for source in sources:
        try:
            found.append((source, switching.Curves(source.run, source.found)))
        except LackError as lack:
            reasons.append(str(lack))
    if not found:
        raise LackError("; ".join(dict.fromkeys(reasons)) or "no run was given")
    shown = found[:PANELS]
    canvas, panels = _rows_of_panels(1.55, len(shown), 2)
    for (source, own), (level, fall) in zip(shown, panels, strict=True):
        own.draw(level, fall)
        level.set_title(source.title, loc="left")
        level.set_ylabel(f"D of the {own.words}")
        level.legend(handlelength=2.4, labelspacing=0.2, fontsize=5.5)
    for axes in panels[-1]:
        axes.set_xlabel("step τ")
    said = [f"{s.title}: {c.which}.{c.note}" for s, c in shown]
    return canvas, (
        "Left: D on the reference's path, first seed; right: how much it fell from the step before. "
        f"{' '.join(said)} Early falls may leave the frame.{_rest(found, shown)}"
    )


def _rows_of_panels(height: float, rows: int, columns: int) -> tuple[Canvas, list[list[Axes]]]:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(WIDTH, height * rows + 0.15), layout="constrained")
    return canvas, [list(row) for row in canvas.subplots(rows, columns, squeeze=False)]


def _rest(found: Sequence[object], shown: Sequence[object]) -> str:
    more = len(found) - len(shown)
    return f" {count(more, 'more run')} not drawn." if more else ""


def _distribution(sources: Sequence[Source]) -> Drawn:
    """Figure 6: SRDiffusion and the fixed switch nearest to it, of each run."""
    pairs = [(s, *p) for s in sources if (p := _pair(s)) is not None]
    if not pairs:
        raise LackError("no run has scores both of SRDiffusion and of a fixed switch")
    shown = pairs[:PANELS]
    canvas, panels = _rows_of_panels(1.7, len(shown), 1)
    said = []
    for (source, *methods), (axes,) in zip(shown, panels, strict=True):
        column = switching.similarity_column(source.found)
        numbers = [(m, switching.scores(m, column.key)) for m in methods]
        switching.draw_distributions(axes, numbers)
        axes.set(xlabel=axis_label(column), ylabel="share at or below")
        axes.set_title(source.title, loc="left")
        axes.legend(loc="upper left", handlelength=2.6, fontsize=5.5, borderpad=0)
        said.append(f"{source.title}: {'; '.join(_spread(m, n, column.unit) for m, n in numbers)}.")
        said += [_printed_pair(source)] if source.is_papers else []
    return canvas, (
        "Share of videos at or below a similarity: the paper's histograms, summed up. To SRDiffusion at "
        "δ = 0.01, or the δ nearest to it, stands the fixed switch nearest to its mean switch step. "
        f"{' '.join(said)}{_rest(pairs, shown)}"
    )


def _pair(source: Source) -> tuple[Method, Method] | None:
    adaptive = source.of_kind("srd")
    fixed = switching.nearest_fixed(adaptive, source.fixed()) if adaptive else None
    if adaptive is None or fixed is None:
        return None
    try:
        key = switching.similarity_column(source.found).key
    except LackError:
        return None
    return (adaptive, fixed) if all(switching.scores(m, key) for m in (adaptive, fixed)) else None


def _spread(method: Method, numbers: Sequence[float], unit: str) -> str:
    """As in `SRDiffusion δ=0.01 variance 3.1 dB² over 60 videos, 2 of which never switched`."""
    square = f" {unit}²" if unit else ""
    variance = f"variance {np.var(numbers, ddof=1):.3g}{square}" if len(numbers) > 1 else "no variance"
    text = f"{method.label}, {variance} over {count(len(numbers), 'video')}"
    never = len(method.cells) - len(switching.switches(method))
    return f"{text}, {never} of which never switched"


def _printed_pair(source: Source) -> str:
    places = published.by_place()
    found = [places.get(("4", source.run.family, m, "psnr")) for m in ("srd_c2", "fixed_switch")]
    if None in found:
        return ""
    srd, fixed = (v.text for v in found if v)
    return f"The paper prints means of {srd} dB (adaptive) and {fixed} dB (fixed), and no variances."


def _switch_steps(sources: Sequence[Source]) -> Drawn:
    """Figure 7: a box for each δ, of each run."""
    found = [(s, m) for s in sources if (m := [m for m in s.adaptive() if switching.switches(m)])]
    if not found:
        raise LackError("no method with a δ switched models in a video of the runs")
    shown = found[:PANELS]
    canvas, panels = _rows_of_panels(1.7, len(shown), 1)
    said = []
    for (source, chosen), (axes,) in zip(shown, panels, strict=True):
        switching.draw_boxes(axes, chosen)
        axes.set_title(source.title, loc="left")
        never = switching.never_switched(chosen)
        said += [f"{source.title}: {never}."] if never else []
        said += [_printed_marks(axes, source, chosen)] if source.is_papers else []
    return canvas, (
        "Box: quartiles and median; whiskers: the farthest within 1.5 box heights; dots: videos, at most "
        f"{switching.MOST_DOTS} a step. n: videos that switched. {' '.join(part for part in said if part)}"
    ).strip() + _rest(found, shown)


def _printed_marks(axes: Axes, source: Source, chosen: Sequence[Method]) -> str:
    """The mean steps that the paper's latencies imply, beside the boxes of the same δ."""
    printed = curves.printed_by_delta(source.run.family)
    points = [(i + 1.38, printed[d]) for i, m in enumerate(chosen) if (d := switching.delta(m)) in printed]
    if not points:
        return ""
    name = "printed, by latency"
    axes.plot(*zip(*points, strict=True), "D", color="#D55E00", ms=4.5, label=name, **curves.PAPERS)
    axes.legend(loc="upper right", handletextpad=0.2)
    return "Hollow diamonds: the mean steps that the paper's latencies imply."


PLANS = (
    Plan("figure_1", "Figure 1: noise put in at chosen steps", ("fig1",), of_one=curves.disturbed),
    Plan("figure_3", "Figure 3: D and its difference", ("fig3", "fig3_cogvideox"), of_all=_change),
    Plan("figure_4", "Figure 4: the longer prompts side by side", ("fig4",), of_one=_long_prompts),
    Plan("figure_5", "Figure 5: with TeaCache and SageAttention", ("fig5",), of_one=_layered),
    Plan(
        "figure_6",
        "Figure 6: similarity, adaptive against fixed switch",
        ("fig6", "fig6_cogvideox"),
        of_all=_distribution,
    ),
    Plan("figure_7", "Figure 7: switch steps over δ", ("fig7", "fig7_cogvideox"), of_all=_switch_steps),
    Plan(
        "printed_switches",
        "Figure 7, as the paper's latencies imply it",
        (),
        of_all=lambda _: curves.printed_switches(),
    ),
    Plan(
        "figure_8_9",
        "Figures 8 and 9: prompts drawn at random",
        ("fig8_9", "fig8_9_cogvideox"),
        of_one=_random_prompts,
    ),
    Plan("figure_10", "Figure 10: longer prompts", ("fig10",), of_one=_own_prompts),
    Plan("figure_11", "Figure 11: videos over δ", ("fig11",), of_one=_over_delta),
    Plan("switch_curve", "Similarity against the switch step", ("switch_curve",), of_one=curves.switch_curve),
    Plan("switch_by_prompt", "Switch step by prompt", ("fig7",), of_one=curves.switch_by_prompt),
    Plan("by_category", "Score by category of prompts", ("table2",), of_one=curves.by_category),
)
