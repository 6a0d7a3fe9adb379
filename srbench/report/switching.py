"""When models are switched: D over the steps, switch steps over δ, adaptive against fixed.

`change`, `distribution` and `switch_steps` are a run's own figures; the functions that take axes
draw one panel, which the paper's figures put side by side for several runs.
"""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from srbench.analysis.values import Column
from srbench.report.drawing import (
    CURVE_COLOURS,
    CURVES,
    DASHES,
    NO_SIMILARITY,
    ROLES,
    Drawn,
    LackError,
    Method,
    axis_label,
    blank,
    columns_of,
    count,
)
from srbench.store.records import CellRecord, RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# where no rule of the run says of which signal D is taken: what fits the paper's speedups
SIGNALS = {"cogvideox": "latent"}
MOST_DOTS = 15  # videos of one switch step that are drawn apart


def is_plain(method: Method) -> bool:
    """A path without accelerators and other settings: the switch alone tells it from the large model."""
    return not any(_changes(segment.get("denoiser") or {}) for segment in method.path)


def _changes(denoiser: Mapping[str, Any]) -> bool:
    return any(value for key, value in denoiser.items() if key != "model")


def delta(method: Method) -> float | None:
    """The δ of the first segment's rule; None where it has none."""
    value = method.until.get("delta")
    return None if value is None else float(value)


def switches(method: Method) -> list[int]:
    """Steps done before the first change of model, of the videos that switched."""
    return [c.trace.switches[0] for c in method.cells if c.trace and c.trace.switches]


def scores(method: Method, metric: str) -> list[float]:
    """A metric's finite numbers, one a video."""
    found = (score_of(c, metric) for c in method.cells)
    return [s for s in found if s is not None]


def score_of(cell: CellRecord, metric: str) -> float | None:
    """One cell's finite number; None where it has none."""
    score = next((s for s in cell.scores if s.metric.name == metric), None)
    if score is None or score.outcome != "done" or score.value is None or not math.isfinite(score.value):
        return None
    return score.value


def similarity_column(found: Sequence[Method]) -> Column:
    """PSNR's, or the first metric's that compares with the reference.  Raises LackError for none."""
    columns = columns_of([m.row for m in found], "similarity")
    if not columns:
        raise LackError(NO_SIMILARITY)
    return next((c for c in columns if c.key.partition("/")[0] == "psnr"), columns[0])


# D and its difference


def change(run: RunRecord, found: Sequence[Method]) -> Drawn:
    """A run's own figure: D above, how much it fell below."""
    curves = Curves(run, found)
    canvas, (top, bottom) = blank(3.0, rows=2)
    curves.draw(top, bottom)
    bottom.set_xlabel("step τ")
    top.legend(handlelength=3, labelspacing=0.25)
    return canvas, (
        f"D of the signal {curves.words} on the reference's path, for {curves.which} (first seed), and how "
        f"much it fell from the step before.{curves.note} Early falls may leave the frame."
    )


class Curves:
    """D per step of a few of a run's prompts, and the rules that watch it.

    Raises LackError where no trace of the reference has D of the signal.
    """

    def __init__(self, run: RunRecord, found: Sequence[Method]) -> None:
        self._rules = [m.until for m in found if m.role == "adaptive" and "delta" in m.until]
        kind = (run.resolved.get("family") or {}).get("kind")
        asked = self._rules[0].get("signal", "model_output") if self._rules else None
        self.signal = str(asked or SIGNALS.get(str(kind), "model_output"))
        self._curves, self._total = _curves(found, self.signal)

    @property
    def words(self) -> str:
        return self.signal.replace("_", " ")

    @property
    def which(self) -> str:
        return f"the first {len(self._curves)} of {count(self._total, 'prompt')}"

    @property
    def note(self) -> str:
        """What the dotted lines and the grey band are, if they are there."""
        dotted = " Dotted: each δ of the run." if self._rules else " No δ in this run."
        early = self._early
        band = f" Grey band: the first {count(early, 'step')}, in which the rule may not fire."
        return dotted + (band if early else "")

    @property
    def _early(self) -> int:
        return max((int(r.get("min_steps", 0)) for r in self._rules), default=0)

    def draw(self, level: Axes, fall: Axes) -> None:
        """D into one panel, its fall and each δ into the other."""
        for (name, d), dash, colour in zip(self._curves, DASHES, CURVE_COLOURS, strict=False):
            steps = np.arange(1, len(d) + 1)
            level.plot(steps, d, ls=dash, color=colour, label=name)
            fall.plot(steps[1:], d[:-1] - d[1:], ls=dash, color=colour)
        deltas = sorted({float(r["delta"]) for r in self._rules})
        low, high = _difference_limits([c for _, c in self._curves], deltas)
        above = -math.inf
        for value in deltas:
            fall.axhline(value, color="0.45", lw=0.6, ls=(0, (1, 1)))
            above = max(value, above + 0.08 * (high - low))  # names of near δ keep off each other
            place = ("axes fraction", "data")
            fall.annotate(f"δ={value:g}", (1, above), xycoords=place, ha="right", va="bottom", fontsize=6)
        fall.axhline(0, color="0.45", lw=0.6)
        fall.set_ylim(low, max(high, above + 0.08 * (high - low)))
        for axes in (level, fall) if self._early else ():
            axes.axvspan(0, self._early, color="0.92", zorder=0, lw=0)
        level.set(ylabel="D", xlim=(0, None))
        fall.set(ylabel="previous D − D", xlim=(0, None))


def _curves(found: Sequence[Method], signal: str) -> tuple[list[tuple[str, np.ndarray]], int]:
    """(name, D per step) of the reference's first seed, first prompts in order; how many there are."""
    first: dict[int, CellRecord] = {}
    for cell in (c for m in found if m.role == "reference" for c in m.cells):
        steps = cell.trace.steps if cell.trace else ()
        if len(steps) >= 3 and all(s.change and signal in s.change for s in steps[1:]):
            first.setdefault(cell.prompt_index, cell)
    if not first:
        raise LackError(f"no trace of the reference has D of the signal {signal}")
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


def distribution(found: Sequence[Method]) -> Drawn:
    """A run's own figure: up to three adaptive methods and the fixed switches nearest to them."""
    column = similarity_column(found)
    chosen = [(m, scores(m, column.key)) for m in _adaptive_and_rivals(found)]
    chosen = [(m, s) for m, s in chosen if s]
    if {m.role for m, _ in chosen} != {"adaptive", "fixed"}:
        raise LackError(f"it needs {column.heading} of both an adaptive and a fixed switch")
    canvas, (axes,) = blank(2.2 + 0.12 * len(chosen))
    draw_distributions(axes, chosen)
    axes.set(xlabel=axis_label(column), ylabel="share of videos at or below")
    canvas.legend(loc="outside lower left", handlelength=3, borderpad=0)
    counts = sorted({len(s) for _, s in chosen})
    return canvas, (
        f"Cumulative distribution of {column.heading} over {' to '.join(map(str, counts))} videos a method. "
        "Blue: adaptive switches; grey: to each, the fixed switch that is nearest to its mean switch step."
    )


def draw_distributions(axes: Axes, chosen: Sequence[tuple[Method, Sequence[float]]]) -> None:
    """The cumulative distribution of each method's numbers, one a video."""
    for i, (method, numbers) in enumerate(chosen):
        ordered, share = np.sort(numbers), np.arange(1, len(numbers) + 1) / len(numbers)
        axes.step(
            [ordered[0], *ordered],
            [0, *share],
            where="post",
            ls=DASHES[i % len(DASHES)],
            color=ROLES[method.role][1] if method.role == "adaptive" else "0.35",
            label=f"{method.label} (mean {np.mean(numbers):.2f})",
        )
    axes.set_ylim(0, 1.02)


def _adaptive_and_rivals(found: Sequence[Method]) -> list[Method]:
    """Up to three adaptive methods, then the fixed switches nearest to their mean step."""
    adaptive = [m for m in found if m.role == "adaptive" and m.cells][: CURVES // 2]
    rivals: list[Method] = []
    for method in adaptive:
        near = nearest_fixed(method, found)
        rivals += [near] if near is not None and near not in rivals else []
    return [*adaptive, *rivals]


def nearest_fixed(method: Method, found: Sequence[Method]) -> Method | None:
    """The fixed switch whose step is nearest to the method's mean switch step."""
    fixed, own = [m for m in found if m.role == "fixed" and switches(m)], switches(method)
    if not own or not fixed:
        return None
    return min(fixed, key=lambda f: abs(np.mean(switches(f)) - np.mean(own)))


# Switch steps over δ


def switch_steps(found: Sequence[Method]) -> Drawn:
    """A run's own figure: a box for each method with a δ."""
    chosen = with_delta(found)
    if not chosen:
        raise LackError("no method with a δ switched models in a video of this run")
    canvas, (axes,) = blank(2.2)
    draw_boxes(axes, chosen)
    said = never_switched(chosen)
    return canvas, (
        "Box: quartiles and median; whiskers: the farthest within 1.5 box heights; dots: videos, "
        f"at most {MOST_DOTS} a step. n: videos that switched.{f' {said}.' if said else ''}"
    )


def with_delta(found: Sequence[Method]) -> list[Method]:
    """The adaptive methods with a δ that switched in some video, by δ."""
    chosen = (m for m in found if m.role == "adaptive" and delta(m) is not None and switches(m))
    return sorted(chosen, key=lambda m: delta(m) or 0.0)


def draw_boxes(axes: Axes, chosen: Sequence[Method]) -> None:
    """Each method's switch steps as a box, and its videos as dots."""
    steps, places = [switches(m) for m in chosen], np.arange(1, len(chosen) + 1)
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
    for place, found in zip(places, steps, strict=True):
        for step, many in Counter(found).items():  # side by side, for equal steps would hide each other
            shown = min(many, MOST_DOTS)
            shift = (np.arange(shown) - (shown - 1) / 2) * 0.03
            axes.plot(place + shift, [step] * shown, ".", ms=2.5, color="0.3", zorder=3)
    deltas = [f"{delta(m):g}" for m in chosen]
    names = deltas if len(set(deltas)) == len(deltas) else [textwrap.fill(m.row.label, 12) for m in chosen]
    axes.set_xticks(places, [f"{n}\nn = {len(s)}" for n, s in zip(names, steps, strict=True)])
    axes.set(xlabel="δ", ylabel="steps before the switch", ylim=(0, None))


def never_switched(chosen: Sequence[Method]) -> str:
    """As in `3 of SRDiffusion δ=0.01 never switched`; empty where all did."""
    never = {m.label: len(m.cells) - len(switches(m)) for m in chosen}
    return "; ".join(f"{n} of {label} never switched" for label, n in never.items() if n)
