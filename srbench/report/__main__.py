"""`python -m srbench.report RUN`: the tables of a run again, from its records alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from srbench import report
from srbench.errors import EXIT_USER, UserError, except_hook


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 2 after a mistake a user can mend, told in three lines on stderr."""
    parser = argparse.ArgumentParser(prog="python -m srbench.report", description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder, results/<experiment>/<run>")
    try:
        report.make(parser.parse_args(arguments).run, Console())
    except UserError as error:
        except_hook(type(error), error, error.__traceback__)
        return EXIT_USER
    return 0


if __name__ == "__main__":
    sys.exit(main())
