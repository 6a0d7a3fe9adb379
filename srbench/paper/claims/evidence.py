"""A run as tests of claims ask it: methods by what they are, values by prompt and seed, scores with draws.

All is computed when it is first asked for, by the functions that make the tables, so that a claim
and the table never tell two numbers of one thing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from srbench.analysis import inference, quantities, table, totals
from srbench.analysis.inference import Costed, Told
from srbench.analysis.quantities import Contender, Key, Quantity, numbers
from srbench.analysis.table import Basis, Tables
from srbench.analysis.values import Value
from srbench.paper import published
from srbench.paper.claims import quoted
from srbench.paper.claims.base import Untold
from srbench.paper.matching import MP4, SIMILARITY
from srbench.store.records import CellRecord, RunRecord

WHERE_ALL = " over the videos that all compared have"
SAME_SPEED = 0.01  # two speedups that are no further apart are equal


class Evidence:
    """One run, its cells and its tables."""

    def __init__(self, run: RunRecord, cells: Sequence[CellRecord], tables: Tables) -> None:
        self.run, self.cells = run, cells
        self._basis = tables.basis or _basis(run, cells)
        self._values: dict[tuple[str, str], dict[Key, float]] = {}
        self._rows = {row.method_id: row for row in tables.main}

    # what the run is

    @property
    def family(self) -> str:
        return self.run.family

    @property
    def untrained(self) -> bool:
        """Twins with random weights: nothing that they do says anything of the family."""
        return self._family_settings.get("scale", "full") != "full"

    @property
    def steps(self) -> int:
        """Denoising steps of a method that doesn't say otherwise."""
        steps = self._family_settings.get("steps")
        return steps if isinstance(steps, int) else quoted.STEPS

    @property
    def estimated(self) -> bool:
        """Are latencies sums of a shared run's step times?"""
        return self.run.timing != "exclusive"

    @cached_property
    def prompts(self) -> int:
        return len({c.prompt_index for c in self.cells})

    @property
    def line(self) -> str:
        """What was run, and where."""
        seeds = len({c.seed for c in self.cells})
        return (
            f"{self.run.experiment}/{self.run.run}: family {self.family}, {self.prompts} prompts × "
            f"{seeds} seed{'s' * (seeds != 1)}, {self.steps} steps, on {self.run.device}, "
            f"protocol {self.run.protocol[:12]}"
            + ", latencies estimated from a shared run's step times"
            * self.estimated
        )

    @property
    def signal(self) -> str:
        """What the switch rule of this family looks at."""
        segments = [s for m in self.run.methods for s in m.path]
        signals = [(s.get("until") or {}).get("signal") for s in segments]
        return next(
            (s for s in signals if s),
            "latent" if self._family_settings.get("kind") == "cogvideox" else "model_output",
        )

    @property
    def _family_settings(self) -> Mapping[str, object]:
        found = self.run.resolved.get("family")
        return found if isinstance(found, dict) else {}

    # methods

    @cached_property
    def contenders(self) -> list[Contender]:
        """Those that compete, in the order of rows; scale rows are no rivals."""
        return [m for m in self._basis.methods if m.role != "scale"]

    @cached_property
    def _signatures(self) -> dict[str, str]:
        """What each is, by method id; one in fewer steps, or by another sampler, is none of the paper's."""
        asked = {m.id: m for m in self.run.methods}
        found = {}
        for m in self.contenders:
            record = asked.get(m.method_id)
            path = record.path if record else next(iter(m.cells.values())).path
            steps = f" in {record.steps} steps" if record and record.steps is not None else ""
            sampler = f" by {record.sampler}" if record and record.sampler else ""
            found[m.method_id] = published.signature(path) + steps + sampler
        return found

    def path(self, method: Contender) -> Sequence[Mapping[str, object]]:
        """Its segments, as they were resolved."""
        record = next((m for m in self.run.methods if m.id == method.method_id), None)
        return record.path if record else next(iter(method.cells.values())).path

    @property
    def large(self) -> Contender:
        """The reference.  Raises Untold where the run has none."""
        return self._only(lambda m, s: m.is_reference, "large model alone")

    @property
    def small(self) -> Contender:
        """The small model alone.  Raises Untold where the run has none."""
        return self._only(lambda m, s: s == "small", "small model alone")

    def like(self, method: published.Method) -> Contender:
        """The run's method that is the published one.

        In another family than the paper's, TeaCache's thresholds and PAB's ranges are what
        that family's are: they have no meaning across models.  Raises Untold where there is none.
        """
        pattern = re.escape(method.path)
        if self.family not in quoted.NAMES:
            pattern = re.sub(r"\\\+(teacache|pab)\\\(.*?\\\)", r"\\+\1\\([^)]*\\)", pattern)
        return self._only(lambda m, s: re.fullmatch(pattern, s) is not None, _named(method))

    def matching(self, pattern: re.Pattern[str]) -> list[tuple[Contender, re.Match[str]]]:
        """All whose signature is of that form, in the order of rows."""
        found = [(m, pattern.fullmatch(self._signatures[m.method_id])) for m in self.contenders]
        return [(m, match) for m, match in found if match and m.cells]

    def _only(self, wanted: Callable[[Contender, str], bool], name: str) -> Contender:
        found = [m for m in self.contenders if m.cells and wanted(m, self._signatures[m.method_id])]
        if not found:
            raise Untold(f"the run has no {name}")
        return found[0]

    # values

    @cached_property
    def quantities(self) -> dict[str, Quantity]:
        """By the column's key; a similarity also by its name alone, of lossless frames where it can be."""
        found = {q.column.key: q for q in self._basis.quantities}
        for name in quoted.SIMILARITY:
            own = [k for k in found if k.partition("/")[0] == name]
            if own:
                found[name] = found[min(own, key=lambda k: (MP4 in k, not k.startswith(SIMILARITY[name])))]
        return found

    def quantity(self, column: str) -> Quantity:
        """Raises Untold where the run has no such column."""
        try:
            return self.quantities[column]
        except KeyError:
            raise Untold(f"the run has no {quoted.ABOUT.get(column, column)}") from None

    def values(self, method: Contender, column: str) -> dict[Key, float]:
        """By (prompt, seed).  Raises Untold where there is none at all."""
        quantity = self.quantity(column)
        if quantity.pooled(method):
            raise Untold(f"the {quantity.column.heading} of {method.label} rests on times of several jobs")
        key = (method.method_id, quantity.column.key)
        if key not in self._values:
            self._values[key] = dict(numbers(quantity.of(method, self._basis.keys)))
        if not self._values[key]:
            raise Untold(f"{method.label} has no {quantity.column.heading}")
        return self._values[key]

    def switches(self, method: Contender) -> tuple[dict[Key, float], int]:
        """Steps done before the first change of model, of the videos that have one; how many have none."""
        measured = self.quantity("switch_step").of(method, self._basis.keys)
        found = dict(numbers(measured))
        never = sum(isinstance(v, quantities.Gap) and v.outcome == "done" for v in measured.values())
        return found, never

    def costed(self, method: Contender, column: str) -> Costed:
        """What it scores in that column and costs in seconds."""
        return Costed(self.values(method, column), self.values(method, "latency"))

    # scores of the suite

    @cached_property
    def _dimensions(self) -> dict[str, list[totals.Dimension]]:
        return totals.suites(self._basis.dimensions)

    @cached_property
    def suite(self) -> str:
        """Whose scores are taken.  Raises Untold where nothing was scored but similarity."""
        if not self._dimensions:
            raise Untold("the run has no scores of a suite")
        return totals.suite_of(self.run, self._dimensions)

    @cached_property
    def _of_suite(self) -> totals.Suite:
        return totals.Suite(self.suite, self._dimensions[self.suite])

    @cached_property
    def _scores(self) -> dict[str, list[totals.Score]]:
        return self._of_suite.scores(len(self._basis.methods))

    @cached_property
    def _place(self) -> dict[str, int]:
        return {m.method_id: i for i, m in enumerate(self._basis.methods)}

    def _compared(self, group: str, methods: Sequence[Contender]) -> totals.Shared:
        """Quality, semantic or total of methods over the videos that all of them have.

        Raises Untold where one of them has no such score, over its own videos or those.
        """
        places = list(dict.fromkeys(self._place[m.method_id] for m in methods))
        shared = self._of_suite.shared(group, places, self._scores[group])
        for m in methods:
            place = self._place[m.method_id]
            for score, where in ((self._scores[group][place], ""), (shared.scores[place], WHERE_ALL)):
                if score.value is None:
                    raise Untold(f"{m.label} has no {group}{where}: {score.reason}")
        return shared

    def combined(self, parts: Sequence[tuple[float, Contender, str]]) -> Told:
        """Σ weight · score of a method's group, in points, over the videos that all methods have.

        The draws are shared by all.  Raises Untold where one of them has no such score.
        """
        methods = [m for _, m, _ in parts]
        of = {group: self._compared(group, methods) for group in dict.fromkeys(g for _, _, g in parts)}
        scores = [(w, of[g].scores[self._place[m.method_id]]) for w, m, g in parts]
        value = math.fsum(w * (s.value or 0.0) for w, s in scores)
        known = [w * s.draws for w, s in scores if s.draws is not None]
        draws = np.sum(known, axis=0) if len(known) == len(scores) else None
        prompts, videos, lost = _over(of.values())
        return replace(inference.of_draws(value, draws, prompts, videos, of_means=True), dropped=lost)

    def retained(self, method: Contender) -> Told:
        """The share of the large model's lead in the total that a method keeps.

        Over the videos that all three have.  Raises Untold where one has no total.
        """
        methods = (method, self.large, self.small)
        shared = self._compared("total", methods)
        own, large, small = (shared.scores[self._place[m.method_id]] for m in methods)
        pairs = [(s.value or 0.0, s.draws) for s in (own, large, small)]
        prompts, videos, lost = _over([shared])
        told = inference.retained_gap(pairs[0], pairs[1], pairs[2], prompts, videos)
        return replace(told, dropped=lost)

    # time

    def row(self, method: Contender, column: str) -> Value:
        """The table's own value."""
        return self._rows[method.method_id][column]

    def speedup(self, method: Contender, over: Contender | None = None) -> Told:
        """Log of how many times as fast as the large model, or as `over`, a method is.

        The number and its interval are the table's: over prompts, each with the median step
        times of its own videos, of a logarithm, so that an interval of few prompts has no
        speedups below 0.
        """
        base = over or self.large
        of, mine = self.values(base, "latency"), self.values(method, "latency")
        found = table.speedup(self.quantity("speedup"), base, method, self._basis.keys)
        if found.mean is None:
            raise Untold(f"{method.label} and {base.label}: {found.reason} of one prompt and seed")
        middle, lost = math.log(found.mean), inference.dropped(of, mine)
        told = Told(middle, None, None, None, found.clusters, found.n, found.reason, lost)
        if found.log_interval is None or found.standard_error is None:
            return told
        low, high = map(math.log, found.log_interval)
        return replace(told, standard_error=found.standard_error / found.mean, low=low, high=high)


def _basis(run: RunRecord, cells: Sequence[CellRecord]) -> Basis:
    made = table.make(run, cells).basis
    assert made is not None
    return made


def _over(of: Iterable[totals.Shared]) -> tuple[int, int, int]:
    """Prompts and videos of the part with the fewest, and the most videos that were left out."""
    prompts, videos, lost = zip(*((s.prompts, s.videos, s.dropped) for s in of), strict=True)
    return min(prompts), min(videos), max(lost)


def _named(method: published.Method) -> str:
    """The paper's name and its settings, as a reader of any run understands them."""
    told = method.settings.partition(";")[0]
    return f"method like {method.name} ({told or method.path})"
