"""What a claim is, and how findings become a word.

A claim is judged twice: on the numbers that the paper prints, as exact as they are printed, and on
measured runs, with intervals over prompts. Its test gives findings, each one comparison with a
bound. It holds where every one that counts does, does not where any does not, and else cannot be
told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from srbench.analysis import inference
from srbench.analysis.inference import LEVEL, Told, Word
from srbench.analysis.values import DASH, fixed

Level = Literal["published", "measured"]
DIGITS = {"×": 2, "dB": 2, "points": 2, "%": 1}


class Untold(Exception):
    """A claim cannot be told; the sentence says why."""


@dataclass(frozen=True)
class Finding:
    """One comparison: the claim needs `estimate` above (or below) `bound`.

    what: of which methods and quantity, for a reader.  estimate, low, high: in `unit`; of
    printed numbers the interval is that of their last digits, of measured ones 95 % over
    prompts.  p: two-sided, None for printed numbers; holm: adjusted for all measured
    comparisons of the report.  methods: method ids of the run, or the paper's methods;
    columns: their columns; places: tables of the paper.  run: which run; n, clusters:
    videos and prompts; dropped: videos left out, since not all that are compared have them.
    reason: why it cannot be told, where no interval says so.  counts: part of the verdict, or
    told beside it.  note, because: said after the numbers, and after what is needed.
    """

    what: str
    unit: str
    estimate: float | None
    low: float | None
    high: float | None
    bound: float = 0.0
    above: bool = True
    p: float | None = None
    clusters: int = 0
    n: int = 0
    dropped: int = 0
    methods: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    run: str = ""
    reason: str = ""
    counts: bool = True
    note: str = ""
    because: str = ""
    estimated: bool = False
    digits: int | None = None
    holm: float | None = None

    @property
    def word(self) -> Word:
        """By the interval alone, then by Holm's p, which only takes away."""
        if self.reason or self.estimate is None or self.low is None or self.high is None:
            return "cannot be told"
        # of printed numbers an end of the interval is rounded away from, so it may touch the bound
        exact = self.p is None
        over = self.low > self.bound or (exact and self.low == self.bound < self.estimate)
        under = self.high < self.bound or (exact and self.high == self.bound > self.estimate)
        if not (over or under) or (self.holm is not None and self.holm >= LEVEL):
            return "cannot be told"
        return "holds" if over == self.above else "does not hold"

    @property
    def sentence(self) -> str:
        """As in `speedup of SRDiffusion δ=0.03: 3.24× [3.18, 3.30] (needed: above 3.00×)`."""
        if self.estimate is None:
            return f"{self.what}: {self.reason or DASH}"
        said = [self.needed] if self.bound or self.unit == "×" else []
        said += [self.note] if self.note else []
        left_out = f"over the {self.n} videos that all have, {self.dropped} left out"
        said += [left_out] if self.dropped else []
        text = f"{self.what}: {self.number}" + (f" ({'; '.join(said)})" if said else "")
        return text + (f" – {self._why}" if self.word == "cannot be told" else "")

    @property
    def needed(self) -> str:
        """As in `needed: above 3.00×`."""
        side = "above" if self.above else "below"
        return f"needed: {side} {self._shown(self.bound)}{self._unit}{self.because}"

    @property
    def number(self) -> str:
        """As in `3.24× [3.18, 3.30] est.`"""
        if self.estimate is None:
            return DASH
        text = f"{self._shown(self.estimate)}{self._unit}"
        if self.low is not None and self.high is not None:
            ends = self._shown(self.low), self._shown(self.high)
            text += f" [{', '.join(ends)}]" if ends[0] != ends[1] else ""
        return text + " est." * self.estimated

    @property
    def _why(self) -> str:
        if self.reason:
            return self.reason
        if self.p is None:
            return "the last digit decides"
        if self.low is not None and self.high is not None and not self.low <= self.bound <= self.high:
            return f"not resolved among so many comparisons (Holm's p {self.holm or 1:.2f})"
        return "not resolved"

    @property
    def _unit(self) -> str:
        return self.unit if self.unit in ("×", "") else f" {self.unit}"

    def _shown(self, number: float) -> str:
        return fixed(number, DIGITS.get(self.unit, 3) if self.digits is None else self.digits)


def measured(
    what: str, unit: str, told: Told, transform: Callable[[float], float] | None = None, **more: Any
) -> Finding:
    """A finding of a measured statistic.

    transform: an increasing function from the statistic's scale to the unit that is shown;
    `bound` is given in the shown unit and `at` in the statistic's own, where they differ.
    """
    at = more.pop("at", more.get("bound", 0.0))
    reason = more.pop("reason", "") or ("" if told.low is not None else told.reason)
    estimate, low, high = (
        None if v is None else transform(v) if transform else v for v in (told.estimate, told.low, told.high)
    )
    about: dict[str, Any] = {"p": told.p(at), "clusters": told.clusters, "n": told.n, "reason": reason}
    about["dropped"] = told.dropped
    return Finding(what, unit, estimate, low, high, **(about | more))


@dataclass(frozen=True)
class Judgement:
    """A word, the sentence that goes with it, and the findings it rests on."""

    word: Word
    why: str
    findings: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def estimated(self) -> bool:
        """Does it rest on latencies of a shared run?"""
        return any(f.estimated for f in self.findings)


def judgement(findings: Sequence[Finding], remarks: Sequence[str] = ()) -> Judgement:
    """The word that the findings give together, and the sentence."""
    counted = [f for f in findings if f.counts]
    words = [f.word for f in counted]
    word: Word = "cannot be told"
    if "does not hold" in words:
        word = "does not hold"
    elif words and all(w == "holds" for w in words):
        word = "holds"
    return Judgement(word, _why(counted, word), tuple(findings), tuple(remarks))


def _why(counted: Sequence[Finding], word: Word) -> str:
    """The findings that decide first, at most three of them; how many there are of each word."""
    if len(counted) == 1:
        return counted[0].sentence
    deciding = [f for f in counted if f.word == word]
    text = "; ".join(f.sentence for f in deciding[:3])
    if len(deciding) > 3:
        text += f"; and {len(deciding) - 3} more"
    rest = {w: sum(f.word == w for f in counted) for w in ("holds", "does not hold", "cannot be told")}
    said = {"holds": "as claimed", "does not hold": "the other way", "cannot be told": "not told"}
    counts = ", ".join(f"{n} {said[w]}" for w, n in rest.items() if n)
    return f"{text} · of {len(counted)} comparisons {counts}" if counted else "nothing to compare"


def cannot(reason: str) -> Judgement:
    """Nothing was judged, and why."""
    return Judgement("cannot be told", reason)


class Test(Protocol):
    """How a claim is judged. Either method raises Untold, with a sentence, where it cannot be."""

    def published(self, setting: str) -> list[Finding]:
        """On the numbers that the paper prints for a setting."""
        ...

    def measured(self, runs: Sequence[Any]) -> list[Finding]:
        """On runs of one family, as Evidence."""
        ...


@dataclass(frozen=True)
class Claim:
    """key: stable.  text: in our words; {score} stands for what scores the videos.  place: where
    it is made.  settings: of the paper's, those it is made for.  elsewhere: whether it can be
    asked of another family.
    """

    key: str
    text: str
    place: str
    settings: tuple[str, ...]
    test: Test
    elsewhere: bool = True
    remark: str = ""


@dataclass(frozen=True)
class Verdict:
    """A claim about one setting of the paper, or asked of another family.

    about: the setting or the family.  setting: whose printed numbers `published` rests on.
    text: says what it is about.  runs: a line on each run that `measured` used.
    """

    claim: Claim
    about: str
    setting: str
    text: str
    published: Judgement
    measured: Judgement
    runs: tuple[str, ...] = field(default=())

    @property
    def is_measured(self) -> bool:
        return bool(self.runs)

    def adjusted(self, holm: Sequence[float | None]) -> Verdict:
        """With Holm's p for each measured finding that counts, in order."""
        ps = iter(holm)
        findings = [replace(f, holm=next(ps)) if f.counts else f for f in self.measured.findings]
        if not findings:
            return self
        return replace(self, measured=judgement(findings, self.measured.remarks))


def adjust(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Holm over all measured comparisons that count, of all verdicts together."""
    counted = [[f.p for f in v.measured.findings if f.counts] for v in verdicts]
    adjusted = iter(inference.holm([p for ps in counted for p in ps]))
    return [v.adjusted([next(adjusted) for _ in ps]) for v, ps in zip(verdicts, counted, strict=True)]
