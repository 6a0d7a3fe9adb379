"""The paper again, with runs' numbers beside the published ones: everything below PAPER/.

Its parts know nothing of each other; this module alone knows all of them.

    index.html               all of it on one page, which needs nothing but this folder
    table1.csv, .md, .tex    to table7: published, measured, difference
    claims.csv, .md          claim by claim: as printed, and as measured
    figures/                 the paper's figures from the runs, PNG and PDF
    contradictions.csv, .md  where the published numbers contradict each other
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template

from rich.console import Console
from rich.text import Text

from srbench.analysis.table import Run
from srbench.analysis.values import DASH
from srbench.paper import claims, contradictions, figures, layouts, tables
from srbench.paper.claims import Judgement, Verdict
from srbench.paper.tables import PaperTable
from srbench.report import export, legend, page
from srbench.report.figures import Figure
from srbench.store.objects import write_text

Found = Sequence[tuple[contradictions.Check, contradictions.Finding]]
CLAIMS = "What the paper claims"
CONTRADICTIONS = "What the published numbers say of each other"


@dataclass(frozen=True)
class Paper:
    """What was written into `folder`.

    verdicts: of every claim.  figures: those of the paper, drawn into folder / "figures".
    """

    folder: Path
    tables: Sequence[PaperTable]
    found: Found
    verdicts: Sequence[Verdict] = ()
    figures: Sequence[Figure] = ()

    @property
    def page(self) -> Path:
        return self.folder / "index.html"

    @property
    def summary(self) -> list[tuple[str, str, str]]:
        """(place on the page, name, what is there), a line each."""
        said = []
        for table in self.tables:
            words = (
                f"{block.setting.name}, {_found(block.found, len(block.methods), 'methods')}"
                for block in table.blocks
            )
            said.append((f"table-{table.number}", layouts.title(table), "; ".join(words)))
        if self.verdicts:
            measured = [v.measured.word for v in self.verdicts if v.is_measured]
            told = claims.tally(measured) or "no run was judged"
            said.insert(0, ("claims", CLAIMS, f"{told}; {len(self.verdicts)} with the printed numbers"))
        kinds = [finding.kind for _, finding in self.found]
        count = kinds.count("disagrees")
        told = f"{count} contradiction{'s' * (count != 1)}, {kinds.count('noted')} more to know"
        return [*said, ("contradictions", CONTRADICTIONS, told)]


def write(
    folder: Path, runs: Sequence[Run], places: Sequence[Path | None] = (), with_figures: bool = True
) -> Paper:
    """Tables, claims, contradictions and figures of the paper as files in `folder`, and its page.

    runs: (record, cells, report.table.make of them), any number; see report.paper_runs for
    which stands beside which setting.  places: their own folders, where frames are taken from.
    with_figures: figures take seconds, as they read videos; without them earlier ones are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = Paper(
        folder,
        tables.make(runs),
        contradictions.find(),
        claims.judge(runs),
        figures.draw(folder / "figures", runs, places) if with_figures else (),
    )
    if not with_figures:
        shutil.rmtree(folder / "figures", ignore_errors=True)
    claims.write(folder, made.verdicts)
    for table in made.tables:
        formats = {
            "csv": tables.to_csv,
            "md": layouts.to_markdown,
            "tex": layouts.to_latex,
        }
        for suffix, text in formats.items():
            write_text(folder / f"table{table.number}.{suffix}", text(table), mode=0o644)
    write_text(folder / "contradictions.csv", contradictions.to_csv(made.found), mode=0o644)
    listed = "".join(f"- {export.markdown(line)}\n" for line in contradictions.lines(made.found))
    write_text(folder / "contradictions.md", f"# {CONTRADICTIONS}\n\n{listed}", mode=0o644)
    for asset in ("page.css", "theme.js"):
        write_text(folder / asset, (page.ASSETS / asset).read_text("utf-8"), mode=0o644)
    write_text(made.page, html(made, runs), mode=0o644)
    return made


def show(paper: Paper, console: Console) -> None:
    """Print the paper's tables, and what the published numbers say of each other."""
    for table in paper.tables:
        layouts.show(table, console)
    for line in ("", CLAIMS, *claims.lines(paper.verdicts)):
        console.print(Text(line), highlight=False)
    for line in ("", CONTRADICTIONS, *contradictions.lines(paper.found)):
        console.print(Text(line), highlight=False)


def pointer(paper: Paper) -> str:
    """One line for a terminal: where it all lies."""
    blocks = [block for table in paper.tables for block in table.blocks]
    found = sum((block.found for block in blocks), Counter[str]())
    whole = sum(len(block.methods) for block in blocks)
    return f"beside the paper ({_found(found, whole, 'rows of its tables')}): {paper.page}"


def _found(found: Counter[str], whole: int, of: str) -> str:
    """What of the paper's was measured, and what only stands in its place.

    >>> _found(Counter({"measured": 4}), 53, "rows of its tables")
    '4 of 53 rows of its tables measured'
    >>> _found(Counter({"shapes": 24}), 53, "rows of its tables")
    'none of 53 rows of its tables measured; 24 filled with the numbers of the family shapes itself'
    """
    said = [f"{found['measured'] or 'none'} of {whole} {of} measured"]
    for whose, count in found.items():
        family = f"the family {whose} itself" if whose != "random weights" else "random weights"
        said += [f"{count} filled with the numbers of {family}"] if whose != "measured" else []
    return "; ".join(said)


def html(paper: Paper, runs: Sequence[Run]) -> str:
    """The page's text; every word from the records is escaped."""
    template = Template((page.ASSETS / "paper.html").read_text("utf-8"))
    sections = [layouts.to_html(table) for table in paper.tables]
    links = [(f"table-{t.number}", f"Table {t.number}") for t in paper.tables]
    if paper.verdicts:
        sections.insert(0, _section("claims", CLAIMS, _claims_html(paper.verdicts)))
        links.insert(0, ("claims", "Claims"))
    if not paper.figures:
        told = '<p class="hint">Drawn by <code>srbench report RUN --paper</code>.</p>'
        sections.append(_section("figures", "Figures", told))
    if paper.figures:
        drawn = "\n".join(page.figure_html(f, where="figures") for f in paper.figures)
        sections.append(_section("figures", "Figures", f'<div class="figures">\n{drawn}\n</div>'))
        links.append(("figures", "Figures"))
    sections.append(_section("contradictions", CONTRADICTIONS, _contradictions_html(paper.found)))
    links.append(("contradictions", "Contradictions"))
    records = [record for record, _, _ in runs]
    named = "; ".join(f"{r.experiment}, run {r.run}, family {r.family}, {r.device}" for r in records)
    warnings = dict.fromkeys(w for r in records for w in legend.warnings(r))
    return template.substitute(
        nav="".join(f'<a href="#{place}">{escape(name)}</a>' for place, name in links),
        lead=escape(f"Measured: {named}."),
        warnings="\n".join(f'<p class="warning">{escape(w)}</p>' for w in warnings),
        sections="\n".join(sections),
    )


def _section(place: str, title: str, inside: str) -> str:
    return f'<section id="{place}">\n<h2>{escape(title)}</h2>\n{inside}\n</section>'


def _claims_html(verdicts: Sequence[Verdict]) -> str:
    """A line for each verdict; what it rests on unfolds.  Those with a measured verdict come first."""
    ordered = sorted(verdicts, key=lambda v: not v.is_measured)
    rows = "\n".join(
        f'<tr><th scope="row">{escape(v.text)}<br><span class="hint">{escape(v.claim.place)}</span></th>'
        f"<td>{_judged(v.published)}</td>"
        f"<td>{_judged(v.measured) if v.is_measured else escape(DASH)}</td></tr>"
        for v in ordered
    )
    how = escape(claims.HOW.replace("**", ""))
    files = '<a href="claims.csv">CSV</a>, <a href="claims.md">Markdown</a>'
    return (
        f'<p class="hint">{how}</p>\n<div class="scroll" tabindex="0" role="region" '
        f'aria-label="{CLAIMS}"><table class="claims"><thead><tr><th scope="col">claim</th>'
        '<th scope="col">as printed</th><th scope="col">measured</th></tr></thead>\n'
        f'<tbody>\n{rows}\n</tbody></table></div>\n<p class="hint files">The same as files: {files}.</p>'
    )


def _judged(found: Judgement) -> str:
    mark, word = claims.MARK[found.word], escape(found.word)
    word += " (est.)" * found.estimated
    if not found.findings:
        return f'{mark} {word}<br><span class="hint">{escape(found.why)}</span>'
    items = "".join(f"<li>{escape(f.sentence)}</li>" for f in found.findings)
    return (
        f'{mark} {word}<details class="more"><summary>{escape(found.why)}</summary><ul>{items}</ul></details>'
    )


def _contradictions_html(found: Found) -> str:
    items = "\n".join(
        f'<div class="{finding.kind}"><dt>{escape(contradictions.WORDS[finding.kind])}</dt>'
        f"<dd>{escape(finding.sentence)}{_places_html(finding)}</dd></div>"
        for _, finding in found
    )
    files = '<a href="contradictions.csv">CSV</a>, <a href="contradictions.md">Markdown</a>'
    return (
        '<p class="hint">Found by checks over the numbers as printed, each with its rounding; the '
        f'cells that a finding rests on unfold.</p>\n<dl class="protocol">\n{items}\n</dl>\n'
        f'<p class="hint files">The same as files: {files}.</p>'
    )


def _places_html(finding: contradictions.Finding) -> str:
    count = len(finding.places)
    items = "".join(f"<li>{escape(contradictions.shown(place))}</li>" for place in finding.places)
    return (
        f'<details class="more"><summary>{count} cell{"s" * (count != 1)}</summary>'
        f'<ul class="notes">{items}</ul></details>'
    )
