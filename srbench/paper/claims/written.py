"""Verdicts as files and as lines of a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from srbench.analysis.inference import Word
from srbench.paper.claims import quoted
from srbench.paper.claims.base import Finding, Judgement, Verdict
from srbench.store.objects import write_text

COLUMNS = (
    "claim", "about", "place", "text", "level", "verdict", "why", "run", "comparison", "decides", "word",
    "estimate", "low", "high", "unit", "needed", "bound", "p", "p_holm", "prompts", "videos",
    "videos_dropped", "estimated", "methods", "columns", "places",
)  # fmt: skip
MARK: dict[Word, str] = {"holds": "✓", "does not hold": "✗", "cannot be told": "?"}
HOW = """\
Each claim is judged twice. **As printed**: on the paper's own numbers, where an interval in brackets is
what the last printed digit leaves open; the paper gives no errors, so this says nothing of chance.
**Measured**: on the runs below, paired by prompt and seed over the videos that all compared have (those
left out are counted), with 95 % intervals over prompts (t on prompt
means, longer on the side of a longer tail; for totals, variances and rank correlations by a cluster
bootstrap, from 8 prompts on). A claim holds
where all its comparisons do, does not hold where any clearly goes the other way, and else cannot be told.
Over all measured comparisons of this report together the chance of a false verdict is at most 5 %
(Holm). A speedup's interval is over prompts, each with the step times of its own videos or, of a
timing pass, over its rounds too; one marked est. is of a run that shared its steps and its machine.
Of a family that is not the paper's a claim is asked as one about that family, whose suite gives no
VBench score; the printed numbers beside it are the paper's. What is marked (beside) decides nothing."""


def write(folder: Path, verdicts: Sequence[Verdict]) -> None:
    """claims.csv, a line for each comparison, and claims.md, into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "claims.csv", to_csv(verdicts), mode=0o644)
    write_text(folder / "claims.md", to_markdown(verdicts), mode=0o644)


def to_csv(verdicts: Sequence[Verdict]) -> str:
    """A line for each comparison; one without numbers for a judgement that has none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for verdict in verdicts:
        for level, found in (("published", verdict.published), ("measured", verdict.measured)):
            for finding in found.findings or (None,):
                writer.writerow(_line(verdict, level, found, finding))
    return out.getvalue()


def _line(verdict: Verdict, level: str, found: Judgement, finding: Finding | None) -> list[object]:
    head = [verdict.claim.key, verdict.about, verdict.claim.place, verdict.text, level, found.word, found.why]
    if finding is None:
        return [*head, *[""] * (len(COLUMNS) - len(head))]
    f = finding
    return [
        *head, f.run, f.what, f.counts, f.word, _number(f.estimate), _number(f.low), _number(f.high), f.unit,
        "above" if f.above else "below", _number(f.bound), _number(f.p), _number(f.holm), f.clusters or "",
        f.n or "", f.dropped or "", f.estimated, " ".join(f.methods), " ".join(f.columns), " ".join(f.places),
    ]  # fmt: skip


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def to_markdown(verdicts: Sequence[Verdict]) -> str:
    """A table of all verdicts, then each with everything that it rests on."""
    parts = ["# Claims", "", HOW, ""]
    parts += [f"- {line}" for line in dict.fromkeys(line for v in verdicts for line in v.runs)] or [
        "No run was given."
    ]
    parts += ["", "| claim | made in | as printed | measured |", "|---|---|---|---|"]
    parts += [
        f"| [{_cell(v.text)}](#{_anchor(v)}) | {_cell(v.claim.place)} | {v.published.word}{_of(v)} "
        f"| {_measured(v)} |"
        for v in verdicts
    ]
    for verdict in verdicts:
        parts += ["", *_section(verdict)]
    return "\n".join(parts) + "\n"


def _section(verdict: Verdict) -> Iterator[str]:
    yield f'<a id="{_anchor(verdict)}"></a>'
    yield f"## {verdict.text}"
    yield ""
    yield f"Made in: {verdict.claim.place}."
    for name, found in ((f"As printed{_of(verdict)}", verdict.published), ("Measured", verdict.measured)):
        yield ""
        yield f"**{name}: {found.word}**{' (est.)' * found.estimated}" + (
            "" if found.findings else f" – {found.why}"
        )
        if found.findings:
            yield ""
            yield from (_bullet(f) for f in found.findings)


def _bullet(f: Finding) -> str:
    rests = [", ".join(f.places)] if f.places else []
    if f.p is not None:
        holm = "" if f.holm is None else f", Holm's {_p(f.holm)}"
        rests.append(f"{f.clusters} prompts, {f.n} videos, p {_p(f.p)}{holm}")
    if f.methods and not f.places:
        rests.append(f"methods {', '.join(f.methods)}; columns {', '.join(f.columns)}; run {f.run}")
    mark = MARK[f.word] if f.counts else "(beside)"
    return f"- {mark} {f.sentence}" + (f" · {'; '.join(rests)}" if rests else "")


def _p(p: float) -> str:
    return "<0.0001" if p < 1e-4 else f"{p:.2g}"


def _of(verdict: Verdict) -> str:
    """Whose printed numbers, where the claim is asked of another family."""
    return "" if verdict.about.startswith(verdict.setting) else f" ({quoted.NAMES[verdict.setting]})"


def _measured(verdict: Verdict) -> str:
    return verdict.measured.word + " (est.)" * verdict.measured.estimated


def _anchor(verdict: Verdict) -> str:
    return f"{verdict.claim.key}-{verdict.about}".replace("+", "-")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def tally(words: Sequence[Word]) -> str:
    """How often each was said.

    >>> tally(["does not hold", "holds", "does not hold"])
    'holds: 1, does not hold: 2'
    """
    return ", ".join(f"{word}: {words.count(word)}" for word in MARK if word in words)


def lines(verdicts: Sequence[Verdict]) -> list[str]:
    """For a terminal: two lines for each claim that was measured, then how many were not.

    A family of which nothing could be judged, all for one reason, has one line.
    """
    said = []
    shown = [v for v in verdicts if v.is_measured]
    for about in dict.fromkeys(v.about for v in shown):
        own = [v for v in shown if v.about == about]
        reasons = {v.measured.why for v in own}
        if len(own) > 1 and len(reasons) == 1 and not any(v.measured.findings for v in own):
            said.append(f"? {about}: none of {len(own)} claims can be told: {reasons.pop()}")
            continue
        for verdict in own:
            said.append(f"{MARK[verdict.measured.word]} {verdict.text}: {_measured(verdict)}")
            said.append(f"    {verdict.measured.why}")
    words = [v.measured.word for v in shown]
    rest = len(verdicts) - len(shown)
    if shown:
        said.append(f"{len(shown)} claims, {tally(words)}")
    if rest:
        said.append(f"{rest} more are about models of which no run was given: judged as printed alone")
    return said
