"""The paper's claims, judged on its own numbers and on measured runs.

verdicts = claims.judge(runs)          # runs: (RunRecord, cells, Tables) of any families
claims.write(folder, verdicts)         # claims.csv, claims.md
claims.lines(verdicts)                 # for a terminal
"""

from __future__ import annotations

from srbench.paper.claims.base import Claim, Finding, Judgement, Verdict
from srbench.paper.claims.judge import judge
from srbench.paper.claims.paper import CLAIMS
from srbench.paper.claims.written import HOW, MARK, lines, tally, write

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
