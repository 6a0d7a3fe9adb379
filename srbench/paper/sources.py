"""A run as the paper's figures see it: methods by what they are, videos, what it may be held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srbench.analysis.table import Tables
from srbench.paper import published
from srbench.paper.frames import Videos
from srbench.report.drawing import Method, methods
from srbench.report.switching import delta, is_plain
from srbench.store.records import CellRecord, RunRecord

TWIN = "random weights: plumbing only"
PAPERS_DELTA = 0.01  # the one of the paper's δ that most of its tables and figures show
STEPS = 50  # of the paper's videos


@dataclass(frozen=True, eq=False)
class Source:
    """One run: its record, rivals in the table's order, videos, and words for names of files.

    tables: report.table.make's.  lacking: by method, why it has no video.  suffix: of its
    figures' names, empty where it is the only run.
    """

    run: RunRecord
    tables: Tables
    found: Sequence[Method]
    videos: Videos
    lacking: dict[str, str]
    suffix: str = ""

    @classmethod
    def of(
        cls, run: RunRecord, cells: Sequence[CellRecord], tables: Tables, place: Path | None, suffix: str
    ) -> Source:
        """From a run's record and cells; place: its folder, where that is at hand."""
        lacking = {c.method_id: f"{c.outcome}: {c.reason}" for c in cells if c.outcome != "done"}
        found = [m for m in methods(run, cells, tables.main) if m.role != "scale"]
        return cls(run, tables, found, Videos(run, place), lacking, suffix)

    @property
    def is_twin(self) -> bool:
        """Are its weights random?"""
        return (self.run.resolved.get("family") or {}).get("scale") == "tiny"

    @property
    def is_papers(self) -> bool:
        """May the paper's numbers stand beside it: the same models, with their real weights?"""
        return self.run.family in settings() and not self.is_twin

    @property
    def title(self) -> str:
        """Above its panel."""
        return f"{self.run.family}, {TWIN}" if self.is_twin else self.run.family

    @property
    def is_square(self) -> bool:
        """Are its frames about as high as wide?"""
        family = self.run.resolved.get("family") or {}
        return float(family.get("width") or 1) < 1.4 * float(family.get("height") or 1)

    def why(self, method: Method) -> str:
        """Why a method has no video."""
        return self.lacking.get(method.row.method_id) or "missing: no cell recorded"

    def of_kind(self, wanted: str) -> Method | None:
        """The method of a kind; of several the paper's, then the one nearest to δ = 0.01, then the first."""
        papers = {m.path for m in published.methods()}
        candidates = [m for m in self.found if kind(m) == wanted]
        return min(
            candidates,
            key=lambda m: (
                published.signature(m.path) not in papers,
                abs((delta(m) or PAPERS_DELTA) - PAPERS_DELTA),
            ),
            default=None,
        )

    def adaptive(self) -> list[Method]:
        """SRDiffusion with nothing added, by δ."""
        chosen = [m for m in self.found if kind(m) == "srd"]
        return sorted(chosen, key=lambda m: delta(m) or 0.0)

    def fixed(self) -> list[Method]:
        """Fixed switches from large to small with nothing added, by step."""
        chosen = [m for m in self.found if m.role == "fixed" and is_plain(m) and m.cells]
        return sorted(chosen, key=lambda m: m.row["switch_step"].value or 0.0)


def kind(method: Method) -> str:
    """What a method is in the paper's figures: `srd+teacache`, `pab`, or its role.

    Of adaptive methods with another rule than SRDiffusion's it is the rule's name.
    """
    if method.role not in ("adaptive", "other", "fixed"):
        return method.role
    denoisers = [segment.get("denoiser") or {} for segment in method.path]
    used = {str(a.get("kind")) for d in denoisers for a in d.get("accelerators") or ()}
    attention = {str(d["attention"]) for d in denoisers if d.get("attention")}
    names = [*sorted(used), *("sage" if "sage" in a else a for a in sorted(attention))]
    rule = str(method.until.get("kind"))
    first = {"adaptive": "srd" if rule == "srdiffusion" else rule, "fixed": "fixed"}.get(method.role)
    if not names and method.role == "adaptive" and not is_plain(method):
        return "other"
    return "+".join([*([first] if first else []), *names]) or "other"


def note_of(sources: Sequence[Source]) -> str:
    """The warnings that a figure carries; that of random weights in few words."""
    twins = dict.fromkeys(s.run.family for s in sources if s.is_twin)
    said = [f"{TWIN} ({', '.join(twins)})"] if twins else []
    for source in sources:
        said += [w for w in source.run.warnings if not (source.is_twin and "random weights" in w)]
    return " · ".join(dict.fromkeys(said))


def settings() -> tuple[str, ...]:
    """The families that the paper has numbers of, in its order."""
    return tuple(dict.fromkeys(m.setting for m in published.methods()))


def implied_switch(setting: str, method: str) -> float | None:
    """The mean switch step k that a published latency implies; None where the paper has none.

        latency = S + k/50 · (L − S)

    L, S: the large and the small model's latencies for 50 steps, in seconds.  Where the paper has
    a speedup but no latency, the latency is L / speedup.
    """
    known = {v.column: v.value for v in published.values() if (v.setting, v.method) == (setting, method)}
    large, small = (_latency(setting, m) for m in ("large", "small"))
    latency = known.get("latency") or (large / known["speedup"] if "speedup" in known else None)
    return None if latency is None else STEPS * (latency - small) / (large - small)


def _latency(setting: str, method: str) -> float:
    own = ((v.setting, v.method, v.column) == (setting, method, "latency") for v in published.values())
    return next(v.value for v, is_own in zip(published.values(), own, strict=True) if is_own)


def papers_delta(path: str) -> float | None:
    """The δ of a published method that is SRDiffusion alone; None of others.

    >>> papers_delta("large until srdiffusion(0.01) > small")
    0.01
    """
    head, _, rest = path.partition("large until srdiffusion(")
    number, _, tail = rest.partition(")")
    return float(number) if not head and tail == " > small" else None
