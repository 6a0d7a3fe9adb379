"""`srbench report RUN…`: all tables and figures of runs again, from their records alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from srbench.cli import reports
from srbench.errors import EXIT_USER, Parser, UserError, except_hook, finish


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 after a mistake a user can mend, told in three lines on stderr."""
    parser = Parser(prog="srbench report", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="results/<experiment>/<run>")
    parser.add_argument(
        "--into",
        type=Path,
        metavar="DIR",
        help="where the paper's tables go, made from all the runs (default: the first RUN's paper/)",
    )
    parser.add_argument("--paper", action="store_true", help="print the paper's tables too")
    args = parser.parse_args(arguments)
    try:
        reports.make_all(args.runs, Console(), args.into, args.paper)
    except UserError as error:
        except_hook(type(error), error, error.__traceback__)
        return EXIT_USER
    return 0


if __name__ == "__main__":
    finish(main, "the same command makes the report again")
