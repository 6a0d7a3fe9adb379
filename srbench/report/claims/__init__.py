"""The paper's claims, judged on its own numbers and on measured runs.

verdicts = claims.judge(runs)          # runs: (RunRecord, cells, Tables) of any families
claims.write(folder, verdicts)         # claims.csv, claims.md
claims.lines(verdicts)                 # for a terminal
"""

from __future__ import annotations

from srbench.report.claims.base import Claim, Finding, Judgement, Verdict
from srbench.report.claims.judge import judge
from srbench.report.claims.paper import CLAIMS
from srbench.report.claims.written import HOW, MARK, lines, tally, write

__all__ = [
    "CLAIMS",
    "HOW",
    "MARK",
    "Claim",
    "Finding",
    "Judgement",
    "Verdict",
    "judge",
    "lines",
    "tally",
    "write",
]
