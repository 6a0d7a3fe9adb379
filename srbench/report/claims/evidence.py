"""A run as tests of claims ask it: methods by what they are, values by prompt and seed, scores with draws.

All is computed when it is first asked for, by the functions that make the tables, so that a claim
and the table never tell two numbers of one thing.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np

from srbench.report import inference, published, quantities, statistics, table, totals
from srbench.report.claims import quoted
from srbench.report.claims.base import Untold
from srbench.report.inference import Costed, Told
from srbench.report.latency import Typical, cell_latency, stage_seconds, work_seconds
from srbench.report.paper_runs import MP4, SIMILARITY
from srbench.report.quantities import Contender, Key, Quantity, numbers
from srbench.report.table import Basis, Tables
from srbench.report.values import Value
from srbench.store.records import CellRecord, RunRecord

MANY = 20_000  # cells; above it one seed of each prompt tells how step times vary
SUITES = ("vbench",)  # the suite that a claim is about, where a run has several
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
        known = list(self._dimensions)
        found = [s for s in (*SUITES, *known) if s in known]
        if not found:
            raise Untold("the run has no scores of a suite")
        return found[0]

    @cached_property
    def _scores(self) -> tuple[int, dict[str, list[totals.Score]]]:
        own = self._dimensions[self.suite]
        prompts, scores = totals.of_suite(self.suite, own, len(self._basis.methods))
        return len(prompts), scores

    @cached_property
    def _place(self) -> dict[str, int]:
        return {m.method_id: i for i, m in enumerate(self._basis.methods)}

    def score(self, method: Contender, group: str) -> tuple[float, np.ndarray | None]:
        """Quality, semantic or total in %, and its draws.  Raises Untold where there is none."""
        found = self._scores[1][group][self._place[method.method_id]]
        if found.value is None:
            raise Untold(f"{method.label} has no {group}: {found.reason}")
        return found.value, found.draws

    def videos(self, method: Contender) -> int:
        """How many of its videos were made."""
        return sum(c.outcome == "done" for c in method.cells.values())

    def combined(self, parts: Sequence[tuple[float, Contender, str]]) -> Told:
        """Σ weight · score of a method's group, in points, with the draws shared by all."""
        scores = [(w, *self.score(m, g)) for w, m, g in parts]
        value = math.fsum(w * v for w, v, _ in scores)
        known = [w * d for w, _, d in scores if d is not None]
        draws = np.sum(known, axis=0) if len(known) == len(scores) else None
        videos = min(self.videos(m) for _, m, _ in parts)
        return inference.of_draws(value, draws, self._scores[0], videos, of_means=True)

    def retained(self, method: Contender) -> Told:
        """The share of the large model's lead in the total that a method keeps."""
        of = [self.score(m, "total") for m in (method, self.large, self.small)]
        return inference.retained_gap(of[0], of[1], of[2], self._scores[0], self.videos(method))

    # time

    def row(self, method: Contender, column: str) -> Value:
        """The table's own value."""
        return self._rows[method.method_id][column]

    def speedup(self, method: Contender, over: Contender | None = None) -> Told:
        """Log of how many times as fast as the large model, or as `over`, a method is.

        The number is the table's. Its interval is over prompts, each with the median step
        times of its own videos: so it holds how the machine's speed changed meanwhile too, which
        the table's ± (of one median for the whole run) does not.  A logarithm, so that an
        interval of few prompts has no speedups below 0.
        """
        base = over or self.large
        ratio = self._ratio(base, method)
        told = inference.of_estimate(self._varied(base, method))
        if told.low is None or told.high is None or told.estimate is None:
            return inference.Told(math.log(ratio), None, None, None, told.clusters, told.n, told.reason)
        error, half = (v / told.estimate for v in (told.standard_error or 0.0, (told.high - told.low) / 2))
        middle = math.log(ratio)
        return inference.Told(middle, error, middle - half, middle + half, told.clusters, told.n)

    def _ratio(self, base: Contender, method: Contender) -> float:
        of, mine = self.values(base, "latency"), self.values(method, "latency")
        both = [k for k in mine if k in of]
        if not both:
            raise Untold(f"{method.label} and {base.label} have no video of one prompt and seed")
        ratio = statistics.ratio_of_means(
            [of[k] for k in both], [mine[k] for k in both], [k[0] for k in both]
        )
        if ratio.mean is None:
            raise Untold(ratio.reason)
        return ratio.mean

    def _varied(self, base: Contender, method: Contender) -> statistics.Estimate:
        """The ratio of latencies with each prompt's own step times."""
        of, mine = self._own_times(base), self._own_times(method)
        both = [k for k in mine if k in of]
        return statistics.ratio_of_means([of[k] for k in both], [mine[k] for k in both], [k[0] for k in both])

    def _own_times(self, method: Contender) -> dict[Key, float]:
        stages = self._stages
        found = {}
        for key in self.values(method, "latency"):
            work = self._work | self._work_by_prompt.get(key[0], {})
            found[key] = math.fsum(cell_latency(method.cells[key], work, stages).values())
        return found

    @cached_property
    def _timed(self) -> list[CellRecord]:
        return [c for m in self.contenders for c in m.cells.values()]

    @cached_property
    def _work(self) -> dict[str, Typical]:
        return dict(work_seconds(self._timed))

    @cached_property
    def _stages(self) -> dict[str, Typical]:
        return dict(stage_seconds(self._timed))

    @cached_property
    def _work_by_prompt(self) -> dict[int, dict[str, Typical]]:
        cells = self._timed
        if len(cells) > MANY:
            first = min(self.run.seeds, default=0)
            cells = [c for c in cells if c.seed == first]
        by_prompt: dict[int, list[CellRecord]] = defaultdict(list)
        for cell in cells:
            by_prompt[cell.prompt_index].append(cell)
        return {p: dict(work_seconds(own)) for p, own in by_prompt.items()}


def _basis(run: RunRecord, cells: Sequence[CellRecord]) -> Basis:
    made = table.make(run, cells).basis
    assert made is not None
    return made


def _named(method: published.Method) -> str:
    """The paper's name and its settings, as a reader of any run understands them."""
    told = method.settings.partition(";")[0]
    return f"method like {method.name} ({told or method.path})"
