"""Every claim's verdict on the paper's own numbers and on measured runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from srbench.analysis.table import Tables
from srbench.paper.claims import quoted
from srbench.paper.claims.base import Claim, Finding, Judgement, Untold, Verdict, adjust, cannot, judgement
from srbench.paper.claims.evidence import Evidence
from srbench.paper.claims.paper import CLAIMS
from srbench.paper.claims.switching import WiderRange
from srbench.store.records import CellRecord, RunRecord

UNTRAINED = "random weights (family.scale=tiny): they show that everything runs, nothing about any model"


def judge(
    runs: Sequence[tuple[RunRecord, list[CellRecord], Tables]], claims: Sequence[Claim] = CLAIMS
) -> list[Verdict]:
    """A verdict for each claim and setting of the paper, and for each other family that a run is of.

    runs: of any families; of several of one family, that with most prompts which has the
    methods is taken for a claim.  Of a claim that was asked of another family, the paper's
    first setting has no line of its own unless a run is of it.  Holm's correction is over all
    measured comparisons of all verdicts together.
    """
    evidence = [Evidence(*run) for run in runs]
    evidence.sort(key=lambda e: -e.prompts)
    return adjust([v for claim in claims for v in _of_claim(claim, evidence)])


def _of_claim(claim: Claim, evidence: Sequence[Evidence]) -> Iterator[Verdict]:
    if isinstance(claim.test, WiderRange):
        yield _across(claim, evidence)
        return
    families = list(dict.fromkeys(e.family for e in evidence))
    others = [f for f in families if f not in quoted.NAMES and claim.elsewhere]
    first = claim.settings[0]
    places = [(f, first) for f in others if first not in families]
    places += [(s, s) for s in claim.settings if (s, s) != (first, first) or not places]
    places += [(f, first) for f in others if first in families]
    for about, setting in places:
        yield _verdict(claim, about, setting, [e for e in evidence if e.family == about])


def _verdict(claim: Claim, about: str, setting: str, runs: Sequence[Evidence]) -> Verdict:
    printed = _told(lambda: claim.test.published(setting))
    measured, used = _measured(claim, about, runs)
    text = claim.text.format(score=_score(about, used))
    return Verdict(claim, about, setting, f"{_about(about)}: {text}", printed, measured, _lines(used))


def _across(claim: Claim, evidence: Sequence[Evidence]) -> Verdict:
    """A claim about two settings at once."""
    known = [e for e in evidence if e.family in claim.settings and not e.untrained]
    measured = _told(lambda: claim.test.measured(known))
    printed = _told(lambda: claim.test.published(claim.settings[0]))
    about = " and ".join(quoted.NAMES[s] for s in claim.settings)
    used = known if measured.findings else []
    return Verdict(
        claim,
        "+".join(claim.settings),
        claim.settings[0],
        f"{about}: {claim.text}",
        printed,
        measured,
        _lines(used),
    )


def _measured(claim: Claim, about: str, runs: Sequence[Evidence]) -> tuple[Judgement, list[Evidence]]:
    """By the first of the runs that has what it takes; else what the largest lacks."""
    if not runs:
        return cannot(f"no run of {_about(about)} was given"), []
    trained = [r for r in runs if not r.untrained]
    if not trained:
        return cannot(UNTRAINED), list(runs[:1])
    if about in quoted.NAMES:  # a claim about a model is one about its 50 steps
        trained = [r for r in trained if r.steps == quoted.STEPS]
        if not trained:
            return cannot(f"the run has not the paper's {quoted.STEPS} steps"), list(runs[:1])
    tried = []
    for run in trained:
        found = _told(lambda run=run: claim.test.measured([run]))  # type: ignore[misc]
        if found.findings:
            return found, [run]
        tried.append(found)
    return tried[0], trained[:1]


def _told(find: Callable[[], list[Finding]]) -> Judgement:
    try:
        return judgement(find())
    except Untold as why:
        return cannot(str(why))


def _score(about: str, used: Sequence[Evidence]) -> str:
    """What scores the videos: VBench is only what is VBench."""
    if about in quoted.NAMES:
        return "VBench"
    try:
        return f"the total of suite {used[0].suite}" if used else "the suite's total"
    except Untold:
        return "the suite's total"


def _about(about: str) -> str:
    return quoted.NAMES.get(about, f"family {about}")


def _lines(used: Sequence[Evidence]) -> tuple[str, ...]:
    return tuple(e.line for e in used)
