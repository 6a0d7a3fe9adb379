"""`python -m srbench.vbench setup | check | weights | score | final | export | read`: official VBench."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from srbench import errors
from srbench.errors import UserError
from srbench.vbench import environment, export, final, run, weights
from srbench.vbench.final import Coverage
from srbench.vbench.run import CUSTOM, Job, Options
from srbench.vbench.score import DIMENSIONS, MLPERF_PASS, MLPERF_REFERENCE


def setup(args: argparse.Namespace) -> int:
    """Build VBench's environment and check it."""
    return _told(environment.setup(args.detectron2))


def check(args: argparse.Namespace) -> int:
    """Say what is in VBench's environment."""
    return _told(environment.check())


def _told(found: dict[str, str]) -> int:
    print(f"{environment.folder()}: " + ", ".join(f"{k} {v}" for k, v in found.items()))
    for line in environment.strange(found):
        print(f"note: {line}; scores move with it, and it is recorded with every score")
    return 0


def show_weights(args: argparse.Namespace) -> int:
    """The table of weights; with --fetch, what may be fetched is."""
    home = environment.weights_home()
    wanted = [f for f in weights.FILES if not args.dimension or set(args.dimension) & set(f.dimensions)]
    failed = dict(weights.fetch(wanted, home)) if args.fetch else {}
    print(f"weights in {home} (VBENCH_CACHE_DIR moves it)")
    for file in wanted:
        state = "there" if not weights.absent([file], home) else "absent"
        if state == "there" and args.verify:
            state = weights.verify(file, home / file.path) or ("sound" if file.sha256 else "there")
        print(f"{state:7} {file.megabytes:8.3f} MB  {file.path}")
        print(f"{'':20}{file.publisher}, {file.licence}; for {', '.join(file.dimensions)}")
        if state == "absent":
            why = f"{failed[file]}; " if failed.get(file) else ""
            print(f"{'':20}{why}put it there from {file.source}")
    for wanting in (*DIMENSIONS, weights.STATIC_FILTER):
        print(f"{wanting}: {weights.lacking(wanting, home) or 'ready'}")
    return 0


def score(args: argparse.Namespace) -> int:
    """Score what is missing, then say what it comes to."""
    options = Options(
        dimensions=tuple(args.dimension or ()),
        methods=tuple(args.method or ()),
        device=args.device,
        encoding=args.encoding,
        again=args.again,
        keep=args.keep_staged,
        static_filter=args.static_filter,
    )
    found = run.score(args.run, options)
    print(", ".join(f"{n} {outcome}" for outcome, n in sorted(found.items())) or "nothing to score")
    show_final(args)
    return errors.EXIT_FAILED_CELLS if found.get("failed") else 0


def show_final(args: argparse.Namespace) -> int:
    """Raw means with their coverage, the total or why there is none, and what it all rests on."""
    job = run.open_run(args.run)
    print(final.what_it_is(job, args.preset))
    for method in dict.fromkeys(c.method for c in job.cells):
        wanted = final.due_dimensions(job, args.preset)
        found = {d: final.coverage(job, method, d, args.preset) for d in wanted}
        begun = [d for d, own in found.items() if own.scored or own.reason]
        if begun:
            print(method)
            _show_method(job, found, args)
    for line in [*_detectable(job, args.prompts), *final.protocol(job, tuple(DIMENSIONS))]:
        print(f"  {line}")
    return 0


def _show_method(job: Job, found: dict[str, Coverage], args: argparse.Namespace) -> None:
    for dimension, own in found.items():
        if own.scored or own.reason:
            print(f"  {_line(dimension, own)}")
    rest = [d for d, own in found.items() if own.due and not (own.scored or own.reason)]
    if rest:
        print(f"  not scored: {', '.join(rest)}")
    if job.is_standard:
        print(f"  {_total(found, args)}")
    else:
        every, some = len(DIMENSIONS), len(CUSTOM)
        print(f"  no total: of {every} dimensions only {some} take other prompts than VBench's")


def _line(dimension: str, own: Coverage) -> str:
    number = "–" if own.raw is None else f"{own.raw:.6f}"
    reason = f"  {own.reason}" if own.reason and not own.is_complete else ""
    some = f", {own.counted} of them count" if own.counted < own.scored else ""
    return f"{dimension:24}{number:>10}  {own.scored} of {own.due} videos{some}{reason}"


def _total(found: dict[str, Coverage], args: argparse.Namespace) -> str:
    try:
        if args.preset == "mlperf":
            mean = final.mlperf(found)
            verdict = "passes" if mean >= MLPERF_PASS * MLPERF_REFERENCE else "fails"
            return f"mean {mean:.2f}, {verdict} against {MLPERF_PASS:.0%} of {MLPERF_REFERENCE}"
        own = final.total(found, args.as_published)
    except UserError as error:
        return error.got
    rounded = " (raw scores rounded to 4 decimals, as published)" if args.as_published else ""
    return f"quality {own.quality:.2f}  semantic {own.semantic:.2f}  total {own.total:.2f}{rounded}"


def _detectable(job: Job, prompts: int | None) -> list[str]:
    """The smallest differences that these videos can tell, where the reference is scored as well."""
    of = f" with {prompts} prompts" if prompts else ""
    lines = [
        f"Δ {dimension} of {method}: {mean:+.6f}; "
        f"a true difference below {least:.6f} would mostly be missed{of}"
        for dimension in DIMENSIONS
        for method, (mean, least) in final.differences(job, dimension, prompts).items()
    ]
    return lines + [
        f"Δ total of {method}: a true difference below {least:.2f} points would mostly be missed{of}"
        for method, least in final.total_detectable(job, prompts).items()
    ]


def make_export(args: argparse.Namespace) -> int:
    """A method's results or videos for elsewhere: the leaderboard's zip, VBench-2.0, VBench-Long."""
    job = run.open_run(args.run)
    if args.to == "leaderboard":
        export.leaderboard(job, args.method, args.target)
        print(f"{args.target}: {len(DIMENSIONS)} result files")
    else:
        count = export.stage(job, args.method, args.target, args.to, args.encoding)
        print(f"{args.target}: {count} videos, and nothing else in it")
    return 0


def read_back(args: argparse.Namespace) -> int:
    """Means by dimension from result files of VBench-2.0, VBench-Long or VBench."""
    for dimension, (mean, videos) in export.read_results(args.file).items():
        print(f"{dimension:32}{mean:10.6f}  {videos} videos")
    return 0


def _two_or_more(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError("a whole number from 2 on")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The commands and what they take."""
    made = errors.Parser(prog="python -m srbench.vbench", description=__doc__)
    commands = made.add_subparsers(required=True)

    def command(name: str, does: object) -> argparse.ArgumentParser:
        own = commands.add_parser(name, help=does.__doc__, description=does.__doc__)
        own.set_defaults(does=does)
        return own

    own = command("setup", setup)
    own.add_argument(
        "--detectron2",
        type=Path,
        metavar="SOURCE",
        help="the folder of its source: built into it, for " + ", ".join(weights.GRIT),
    )
    command("check", check)
    own = command("weights", show_weights)
    own.add_argument("--dimension", nargs="+", choices=list(DIMENSIONS))
    own.add_argument("--fetch", action="store_true", help="get what its licence lets anyone have")
    own.add_argument("--verify", action="store_true", help="hash what is there, where a hash is told")
    own = command("export", make_export)
    own.add_argument("run", type=Path)
    own.add_argument("method", help="a method of the run")
    own.add_argument("target", type=Path, help="a zip to write, or a new folder")
    own.add_argument("--to", choices=["leaderboard", "vbench2", "long"], default="leaderboard")
    own.add_argument("--encoding", choices=["rgb", "yuv420p"], default="rgb")
    own = command("read", read_back)
    own.add_argument("file", type=Path, nargs="+", help="*_eval_results.json")
    for name, does in (("score", score), ("final", show_final)):
        own = command(name, does)
        own.add_argument("run", type=Path, help="a run's folder, results/<experiment>/<run>")
        own.add_argument("--preset", choices=["run", "standard", "mlperf"], default="run")
        own.add_argument("--prompts", type=_two_or_more, help="tell what a subset of this many could detect")
        own.add_argument("--as-published", action="store_true", help="round raw scores to 4 decimals first")
        if name == "score":
            own.add_argument("--dimension", nargs="+", help="these only")
            own.add_argument("--method", nargs="+", help="these only")
            own.add_argument("--device", default="cpu", help="as torch names it: cpu, cuda, cuda:1")
            own.add_argument("--encoding", choices=["rgb", "yuv420p"], default="rgb")
            own.add_argument(
                "--static-filter",
                choices=["none", "official"],
                default="none",
                help="of temporal_flickering: none as in cache papers, or VBench's own, which wants weights",
            )
            own.add_argument("--again", action="store_true", help="also what is scored already")
            own.add_argument("--keep-staged", action="store_true", help="keep the encoded videos")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 where VBench failed on something; 2 after a mistake a user can mend, told on stderr."""
    args = parser().parse_args(arguments)
    try:
        return int(args.does(args))
    except UserError as error:
        errors.except_hook(type(error), error, error.__traceback__)
        return errors.EXIT_USER


if __name__ == "__main__":
    sys.exit(main())
