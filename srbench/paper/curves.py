"""Figures over a step, a prompt or a category: noise at chosen steps, fixed switches, switch by prompt."""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from srbench.analysis import statistics
from srbench.analysis.values import FEWEST_TO_RANK, Column, Value, of_estimate
from srbench.paper import frames, published
from srbench.paper.sources import Source, implied_switch, papers_delta, settings
from srbench.report import switching
from srbench.report.drawing import (
    DASHES,
    ROLES,
    WIDTH,
    Drawn,
    LackError,
    Method,
    axis_label,
    blank,
    columns_of,
    count,
    short,
)
from srbench.store.records import CellRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import Locator

MANY_PROMPTS = 80  # above it, a prompt each is too narrow for a marker
CATEGORIES = 12  # at most, the largest first
NAMES = {"wan21_480p": "Wan 2.1 480p", "wan21_720p": "Wan 2.1 720p", "cogvideox": "CogVideoX"}
DIFFERENCE = Column("difference", "difference", "points", kind="difference", bounds=(-100.0, 100.0))
KEEP = "inside"  # marks lines that must be inside the frame
PAPERS: Any = {"mfc": "white", "mew": 0.8, "ls": "none", "zorder": 3}  # hollow: printed, not measured here


# Figure 1: noise at chosen steps


def disturbed(source: Source) -> Drawn:
    """How far noise put in after a step moves the video away from the undisturbed one."""
    from matplotlib.figure import Figure as Canvas

    noisy = _disturbed(source.found)
    if not noisy:
        raise LackError("no method puts noise into the latents at a chosen step")
    column = switching.similarity_column(source.found)
    if all(m.row[column.key].value is None for m in noisy):
        raise LackError(f"no disturbed video has a {column.heading}")
    semantic = [c for c in columns_of([m.row for m in source.found], "total") if c.key.endswith("/semantic")]
    semantic = [c for c in semantic if any(m.row[c.key].value is not None for m in noisy)][:1]
    strip = _strip(source, noisy)
    sheets = strip if isinstance(strip, list) else []
    tall = [0.9 for _ in (column, *semantic)] + [s.tallness * (WIDTH - 0.1) for s in sheets]
    canvas = Canvas(figsize=(WIDTH, sum(tall) + 0.45 + 0.28 * len(sheets)), layout="constrained")
    axes = list(canvas.subplots(len(tall), 1, height_ratios=tall, squeeze=False)[:, 0])
    for own, shown in zip(axes, (column, *semantic), strict=False):
        _over_steps(own, [m.row[shown.key] for m in noisy], [_step(m) for m in noisy])
        own.set_ylabel(axis_label(shown).replace(", higher is better", "").replace(", lower is better", ""))
    if semantic:
        base = next((m.row[semantic[0].key].value for m in source.found if m.role == "reference"), None)
        if base is not None:
            axes[1].axhline(base, color="0.45", lw=0.8, ls=(0, (1, 1)), zorder=0)
        axes[0].sharex(axes[1])
    axes[0].set_title(source.title, loc="left")
    axes[len(semantic)].set_xlabel("steps done before the noise is added")
    for own, sheet in zip(axes[1 + len(semantic) :], sheets, strict=True):
        frames.draw_sheet(own, sheet, with_rows=False, letters=70)
    for own in axes[1 + len(semantic) : -1] if sheets else ():
        own.set_xticklabels([])
    return canvas, _disturbed_caption(source, noisy, bool(semantic), strip)


def _disturbed(found: Sequence[Method]) -> list[Method]:
    """The large model disturbed after a step, by step; of several strengths the most frequent."""
    by_strength: dict[tuple[object, object], list[Method]] = defaultdict(list)
    for method in found:
        noise = (method.path[1].get("denoiser") or {}).get("disturb") if len(method.path) == 2 else None
        if noise and "step" in method.until and method.cells:
            by_strength[noise.get("scale"), noise.get("bias")].append(method)
    largest = max((len(methods) for methods in by_strength.values()), default=0)
    return sorted(next((m for m in by_strength.values() if len(m) == largest), []), key=_step)


def _step(method: Method) -> int:
    return int(method.until["step"])


def _strip(source: Source, noisy: Sequence[Method]) -> list[frames.Sheet] | str:
    """A row of middle frames for each of some prompts, or why there are none."""
    shown = [m for m in source.found if m.role == "reference"] + list(noisy)
    names = ["none", *(f"step {_step(m)}" for m in noisy)]
    try:
        keys, _ = frames.sample(source.videos, shown)
        return [frames.middle(source.videos, shown, key, names) for key in keys]
    except LackError as lack:
        return str(lack)


def _disturbed_caption(
    source: Source, noisy: Sequence[Method], semantic: bool, strip: list[frames.Sheet] | str
) -> str:
    noise = noisy[0].path[1]["denoiser"]["disturb"]
    values = [m.row[switching.similarity_column(source.found).key] for m in noisy]
    parts = [
        f"Gaussian noise of σ {noise.get('scale'):g} and mean {noise.get('bias'):g} is added to the large "
        "model's latents after a step; similarity is to the undisturbed video. "
        f"{_over(values)}"
    ]
    parts += ["Dotted: the undisturbed videos' semantic score."] if semantic else []
    parts += [] if semantic else ["No semantic score: the records have no such dimension."]
    if isinstance(strip, str):
        parts.append(f"No frames: {strip}.")
    else:
        which = count(len(strip), "prompt")
        parts.append(f"Middle frames of {which}, drawn at random by seed {frames.SAMPLE_SEED}.")
    return " ".join(parts)


def _over(values: Sequence[Value]) -> str:
    """Over how much the points are means."""
    clusters, n = max(v.clusters for v in values), max(v.n for v in values)
    if clusters < 2:
        return f"Means over {count(n, 'video')} of one prompt, so without intervals."
    leave = f", which with fewer than {FEWEST_TO_RANK} may leave the frame" * (clusters < FEWEST_TO_RANK)
    bars = f"bars: 95 % intervals over prompts{leave}"
    return f"Means over {count(n, 'video')} of {count(clusters, 'prompt')}; {bars}."


def _over_steps(axes: Axes, values: Sequence[Value], steps: Sequence[float]) -> None:
    """Means against a step, joined, with those intervals that enough prompts stand behind in the frame."""
    known = [(s, v.value, v) for s, v in zip(steps, values, strict=True) if v.value is not None]
    colour = ROLES["adaptive"][1]
    axes.plot([s for s, _, _ in known], [m for _, m, _ in known], "o-", color=colour, ms=3.5)
    for step, _, value in known:
        if value.low is not None and value.high is not None:
            axes.plot([step, step], [value.low, value.high], color=colour, lw=0.7)
    axes.set_xlim(0, None)
    _fit(axes, values)


def _fit(axes: Axes, values: Sequence[Value]) -> None:
    """Heights that fit the means, printed ones too, and the intervals that enough prompts stand behind."""
    inside = [v.value for v in values if v.value is not None]
    for value in (v for v in values if v.clusters >= FEWEST_TO_RANK):
        inside += [end for end in (value.low, value.high) if end is not None]
    for line in axes.lines:
        inside += [float(y) for y in np.asarray(line.get_ydata(), float)] if line.get_gid() == KEEP else []
    pad = 0.1 * (max(inside) - min(inside) or 1.0)
    axes.set_ylim(min(inside) - pad, max(inside) + pad)


# The fixed switch at every step, and the adaptive ones


def switch_curve(source: Source) -> Drawn:
    """Similarity against the switch step, adaptive methods at their mean."""
    column = switching.similarity_column(source.found)
    fixed = [m for m in source.fixed() if m.row[column.key].value is not None]
    if len(fixed) < 2:
        raise LackError(f"a curve needs two fixed switches with {column.heading}, it has {len(fixed)}")
    adaptive = [m for m in source.adaptive() if m.row[column.key].value is not None]
    adaptive = [m for m in adaptive if m.row["switch_step"].value is not None]
    small = [m for m in source.found if m.role == "small" and m.row[column.key].value is not None]
    canvas, (axes,) = blank(2.4)
    axes.plot(
        [_at(m) for m in (*small, *fixed)],
        [m.row[column.key].value or 0.0 for m in (*small, *fixed)],
        color=ROLES["fixed"][1],
        lw=0.8,
        zorder=1,
    )
    for method in (*small, *fixed, *adaptive):
        _point(axes, method, column.key)
    _name_adaptive(axes, adaptive, column.key)
    said = _printed_points(axes, source, column.key)
    axes.set(xlabel="steps before the switch", ylabel=axis_label(column))
    axes.xaxis.set_major_locator(_whole_numbers())
    axes.set_title(source.title, loc="left")
    _fit(axes, [m.row[column.key] for m in (*small, *fixed, *adaptive)])
    axes.set_xlim(-1, 1.1 * max(map(_at, (*fixed, *adaptive))) + 1)
    canvas.legend(loc="outside lower left", ncols=4, handletextpad=0.2, columnspacing=1, borderpad=0)
    return canvas, _curve_caption(source, [m.row[column.key] for m in (*fixed, *adaptive)], adaptive, said)


def _whole_numbers() -> Locator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])


def _at(method: Method) -> float:
    """Where a method stands on the axis of switch steps: the small model alone at 0."""
    return 0.0 if method.role == "small" else method.row["switch_step"].value or 0.0


def _point(axes: Axes, method: Method, key: str) -> None:
    marker, colour, words = ROLES[method.role]
    value, step, x = method.row[key], method.row["switch_step"], _at(method)
    known = {h.get_label() for h in axes.lines}
    name = words if words not in known else "_"
    y = value.value or 0.0
    axes.plot([x], [y], marker, color=colour, mec="white", mew=0.5, ms=5.5, zorder=3, label=name)
    if value.low is not None and value.high is not None:
        axes.plot([x, x], [value.low, value.high], color=colour, lw=0.6, alpha=0.7, zorder=2)
    if method.role == "adaptive" and step.low is not None and step.high is not None:
        axes.plot([step.low, step.high], [y, y], color=colour, lw=0.6, alpha=0.7, zorder=2)


def _name_adaptive(axes: Axes, adaptive: Sequence[Method], key: str) -> None:
    for method in adaptive:
        place = (_at(method), method.row[key].value or 0.0)
        text = f"δ={switching.delta(method):g}"
        axes.annotate(text, place, (4, -3), textcoords="offset points", ha="left", va="top", fontsize=6)


def _printed_points(axes: Axes, source: Source, key: str) -> str:
    """The paper's own points, hollow, beside a run of its models; and the caption's words on them."""
    if not source.is_papers:
        return ""
    name = key.partition("/")[0]
    printed = {
        v.method: v.value for v in published.values() if (v.setting, v.column) == (source.run.family, name)
    }
    points = []
    for method in published.methods():
        at = implied_switch(source.run.family, method.method)
        is_switch = papers_delta(method.path) is not None or "fixed_step" in method.path
        if method.setting == source.run.family and method.method in printed and is_switch and at is not None:
            points.append((at, printed[method.method]))
    if not points:
        return ""
    axes.plot(
        *zip(*points, strict=True), "o", color=ROLES["adaptive"][1], ms=5, label="printed", gid=KEEP, **PAPERS
    )
    return (
        " Hollow: what the paper prints, at the mean step that its latencies imply; on other prompts and "
        "seeds, and without intervals."
    )


def _curve_caption(source: Source, values: Sequence[Value], adaptive: Sequence[Method], said: str) -> str:
    never = switching.never_switched(adaptive)
    parts = [
        _over(values),
        "Line: fixed switches (and the small model alone, at 0); adaptive ones stand at their mean switch "
        "step, each with an interval of its own both ways.",
    ]
    parts += [f"{never}: these are in the mean similarity, not in the mean step."] if never else []
    parts += [] if adaptive else ["No adaptive method in this run."]
    return " ".join(parts) + said


# Switch step by prompt


def switch_by_prompt(source: Source) -> Drawn:
    """Prompts in the order of their switch step, for up to three δ."""
    chosen = [m for m in source.adaptive() if switching.switches(m)][:3]
    if not chosen:
        raise LackError("no method with a δ switched models in a video of this run")
    lead = min(chosen, key=lambda m: abs((switching.delta(m) or 0.01) - 0.01))
    steps = {m.row.method_id: _by_prompt(m) for m in chosen}
    first = steps[lead.row.method_id]
    order = sorted(first, key=lambda p: (np.mean(first[p]), p))
    canvas, (axes,) = blank(2.2)
    many = len(order) > MANY_PROMPTS
    ranks = np.arange(1, len(order) + 1)
    for method, dash, mark in zip(chosen, DASHES, "osD", strict=False):
        own = steps[method.row.method_id]
        colour = ROLES["adaptive"][1] if method is lead else "0.4"
        means = [float(np.mean(own[p])) if p in own else math.nan for p in order]
        style = {"ls": dash, "marker": ""} if many else {"ls": "none", "marker": mark}
        axes.plot(
            ranks,
            means,
            color=colour,
            ms=2.8 if len(order) < 30 else 2,
            lw=0.8,
            label=f"δ={switching.delta(method):g}",
            **style,
        )
    spans = [(min(first[p]), max(first[p])) for p in order]
    low, high = zip(*spans, strict=True)
    axes.vlines(ranks, low, high, color=ROLES["adaptive"][1], lw=0.6, alpha=0.5, zorder=1)
    axes.set(xlabel="prompts, earliest switch first", ylabel="steps before the switch", ylim=(0, None))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(_whole_numbers())
    axes.set_title(source.title, loc="left")
    axes.legend(ncols=3, loc="lower right", handletextpad=0.3, columnspacing=1)
    seeds = sorted({len(s) for s in first.values()})
    text = {c.prompt_index: c.prompt for m in chosen for c in m.cells}
    never = switching.never_switched(chosen)
    return canvas, (
        f"Mean over {' to '.join(map(str, seeds))} seed{'s' * (seeds != [1])} of each of "
        f"{count(len(order), 'prompt')}, in the order of δ={switching.delta(lead):g}; lines: from its "
        f"earliest to its latest seed. First: "
        f"“{short(text[order[0]], 70)}”; last: “{short(text[order[-1]], 70)}”."
        f"{f' {never}; these are left out.' if never else ''}"
    )


def _by_prompt(method: Method) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for cell in method.cells:
        if cell.trace and cell.trace.switches:
            found[cell.prompt_index].append(cell.trace.switches[0])
    return found


# Quality by category of prompts


def by_category(source: Source) -> Drawn:
    """Score and similarity in each category of prompts, of a few methods."""
    categories = _categories(source)
    reference = next((m for m in source.found if m.role == "reference"), None)
    if reference is None:
        raise LackError("the run has no reference")
    column, chosen = switching.similarity_column(source.found), _one_of_each(source)
    canvas, (left, right) = _two_panels(0.95 + 0.13 * len(chosen) * len(categories))
    base = _video_scores(reference)
    for j, method in enumerate(chosen):
        scores = _video_scores(method)
        similar = {(c.prompt_index, c.seed): switching.score_of(c, column.key) for c in method.cells}
        for i, members in enumerate(categories.values()):
            y = i + (j - (len(chosen) - 1) / 2) * 0.75 / len(chosen)
            own = [(k, s - base[k]) for k, s in scores.items() if k in base and k[0] in members]
            _across(left, method, y, own, DIFFERENCE)
            near = [(k, s) for k, s in similar.items() if k[0] in members and s is not None]
            _across(right, method, y, near, column)
    for axes in (left, right):
        _limit(axes)
    left.axvline(0, color="0.45", lw=0.6)
    names = [f"{textwrap.fill(name, 15)}\n({count(len(p), 'prompt')})" for name, p in categories.items()]
    left.set_yticks(range(len(names)), names, fontsize=5.5, linespacing=0.95)
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_xlabel("score − reference’s, points")
    right.set_xlabel(f"{column.heading}{f' ({column.unit})' if column.unit else ''}")
    left.set_title(source.title, loc="left")
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
        for edge in range(1, len(names)):
            axes.axhline(edge - 0.5, color="0.85", lw=0.5, zorder=0)
    handles = [
        right.plot(
            [], [], ROLES[m.role][0], color=ROLES[m.role][1], mec="white", ms=4.5, label=short(m.label, 24)
        )[0]
        for m in chosen
    ]
    canvas.legend(handles=handles, loc="outside lower left", ncols=2, handletextpad=0.2, borderpad=0)
    return canvas, _category_caption(source, chosen)


def _category_caption(source: Source, chosen: Sequence[Method]) -> str:
    rest = [m.label for m in source.found if m not in chosen and m.role != "reference"]
    return (
        "Prompts by the suite's dimensions that apply to them and not to all. Left: a video's weighted mean "
        "of its own dimensions (0 to 100), minus the reference's of the same prompt and seed; no total of "
        "the suite. Right: similarity to the reference. Bars: 95 % intervals over prompts, which with "
        f"fewer than {FEWEST_TO_RANK} prompts may leave the frame."
    ) + (f" Not drawn: {'; '.join(rest)}." if rest else "")


def _one_of_each(source: Source) -> list[Method]:
    """The rivals that are always there, SRDiffusion, the fixed switch next to it, TeaCache."""
    adaptive = source.of_kind("srd")
    fixed = switching.nearest_fixed(adaptive, source.fixed()) if adaptive else None
    chosen = [source.of_kind("small"), source.of_kind("fewer"), fixed, adaptive, source.of_kind("teacache")]
    found = [m for m in chosen if m is not None and m.cells]
    if not found:
        raise LackError("the run has none of the methods that are compared")
    return found


def _categories(source: Source) -> dict[str, set[int]]:
    """Prompts by the dimensions that not all prompts have; the largest first."""
    own: dict[int, frozenset[str]] = {}
    for cell in (c for m in source.found for c in m.cells):
        if cell.prompt_index not in own and (names := _dimensions_of(cell)):
            own[cell.prompt_index] = names
    if not own:
        raise LackError(
            "the records have no score of a suite's dimension, and without it prompts have no category"
        )
    shared = frozenset.intersection(*own.values())
    found: dict[str, set[int]] = defaultdict(set)
    for prompt, names in own.items():
        words = sorted(n.rpartition("/")[2].replace("_", " ") for n in names - shared)
        found[", ".join(words) or ("all prompts" if len(set(own.values())) == 1 else "none of these")].add(
            prompt
        )
    largest = sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return dict(largest[:CATEGORIES])


def _dimensions_of(cell: CellRecord) -> frozenset[str]:
    """The suite's dimensions that apply to the cell's prompt."""
    due = (s for s in cell.scores if s.metric.group != "similarity" and s.outcome != "skipped")
    return frozenset(s.metric.name for s in due)


def _video_scores(method: Method) -> dict[tuple[int, int], float]:
    """Each video's weighted mean of its own dimensions, put on 0 to 100 %."""
    found = {}
    for cell in method.cells:
        sums = weights = 0.0
        for score in (s for s in cell.scores if s.metric.group != "similarity"):
            value, (low, high) = switching.score_of(cell, score.metric.name), score.metric.scale
            if value is not None and score.count:
                sums += score.metric.weight * (value - low) / (high - low)
                weights += score.metric.weight
        if weights:
            found[cell.prompt_index, cell.seed] = 100 * sums / weights
    return found


def _two_panels(height: float) -> tuple[Canvas, list[Axes]]:
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
    return canvas, list(canvas.subplots(1, 2, sharey=True))


def _across(
    axes: Axes, method: Method, y: float, numbers: Sequence[tuple[tuple[int, int], float]], column: Column
) -> None:
    """The mean over prompts of a method's numbers, by (prompt, seed), with its interval."""
    mean = statistics.clustered_mean([n for _, n in numbers], [k[0] for k, _ in numbers])
    found = of_estimate(column, mean, protocol="")
    if found.value is None:
        return
    marker, colour, _ = ROLES[method.role]
    if found.low is not None and found.high is not None:
        gid = "" if found.clusters < FEWEST_TO_RANK else KEEP
        axes.plot([found.low, found.high], [y, y], color=colour, lw=0.7, zorder=2, gid=gid)
    axes.plot([found.value], [y], marker, color=colour, mec="white", mew=0.4, ms=4.5, zorder=3, gid=KEEP)


def _limit(axes: Axes) -> None:
    """Limits that fit the means and what several prompts tell: two prompts' interval would flatten all."""
    inside = [np.asarray(line.get_xdata(), float) for line in axes.lines if line.get_gid() == KEEP]
    every = np.concatenate(inside) if inside else np.array([0.0, 1.0])
    low, high = float(every.min()), float(every.max())
    pad = 0.06 * (high - low or 1.0)
    if not inside:
        axes.annotate(
            "no numbers", (0.5, 0.5), xycoords="axes fraction", ha="center", fontsize=6, color="0.3"
        )
    axes.set_xlim(low - pad, high + pad)


# Switch steps that the paper's latencies imply


def printed_switches() -> Drawn:
    """The paper's settings over δ; nothing measured."""
    canvas, (axes,) = blank(2.0)
    parts = []
    for setting, mark, dash in zip(settings(), "os^", DASHES, strict=False):
        points = printed_by_delta(setting)
        xs, ys = zip(*sorted(points.items()), strict=True)
        axes.plot(xs, ys, ls=dash, marker=mark, color="0.25", mfc="white", ms=5, lw=0.8, label=NAMES[setting])
        parts.append(
            f"{NAMES[setting]}: " + ", ".join(f"{y:.1f} at δ={x:g}" for x, y in zip(xs, ys, strict=True))
        )
    axes.set_xscale("log")
    axes.set_xticks([0.002, 0.005, 0.01, 0.02, 0.03], ["0.002", "0.005", "0.01", "0.02", "0.03"])
    axes.minorticks_off()
    axes.set(xlabel="δ", ylabel="mean switch step", ylim=(0, None))
    axes.set_title("printed in the paper; nothing measured here", loc="left")
    axes.legend()
    return canvas, (
        "Mean steps before the switch that the paper's latencies imply, by latency = S + k/50 · (L − S) with "
        "the large and the small model's own; spread and number of videos are not printed. "
        f"{'; '.join(parts)}."
    )


def printed_by_delta(setting: str) -> dict[float, float]:
    """δ → mean switch step that the paper's latencies imply, of one of its settings."""
    found = {}
    for method in (m for m in published.methods() if m.setting == setting):
        delta, at = papers_delta(method.path), implied_switch(setting, method.method)
        if delta is not None and at is not None:
            found[delta] = at
    return found
