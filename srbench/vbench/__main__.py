"""`srbench vbench setup | check | weights | score | final | export | read`: official VBench."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from srbench import errors
from srbench.errors import UserError
from srbench.vbench import environment, export, final, foreign, run, weights
from srbench.vbench.final import Coverage
from srbench.vbench.run import CUSTOM, Job, Options
from srbench.vbench.score import DIMENSIONS, MLPERF_PASS, MLPERF_REFERENCE

# Of what stands beside a number: not which software made it, but what was scored and how.
TELLING = ("mode", "prompts", "duration", "static filter", "staged")

RUN = "a run's folder, results/<experiment>/<run>"
ENCODING: dict[str, Any] = {
    "choices": ["rgb", "yuv420p"],
    "default": "rgb",
    "help": "of the videos that VBench reads: lossless (rgb), or as mp4s mostly are (yuv420p)",
}


def setup(args: argparse.Namespace) -> int:
    """Build VBench's environment and check it."""
    return _told(environment.setup(args.detectron2))


def check(args: argparse.Namespace) -> int:
    """Say what is in VBench's environment."""
    return _told(environment.check())


def _told(found: dict[str, str]) -> int:
    _say(f"{environment.folder()}: " + _versions(found))
    for line in environment.strange(found):
        _say(f"note: {line}; scores move with it, and it is recorded with every score")
    if found.get("detectron2") == "absent":
        _say(f"without detectron2 {', '.join(weights.GRIT)} cannot be scored: {environment.DETECTRON}")
    return 0


def _say(text: str) -> None:
    print(errors.wrapped(text, sys.stdout), flush=True)


def _versions(found: Mapping[str, str]) -> str:
    return ", ".join(f"{k} {v}" for k, v in found.items() if k != "device")


def show_weights(args: argparse.Namespace) -> int:
    """The weights that dimensions want, where they belong and come from; --fetch gets the free ones."""
    home = environment.weights_home()
    asked = args.dimension or [*DIMENSIONS, weights.STATIC_FILTER]
    wanted = [f for f in weights.FILES if set(asked) & set(f.dimensions)]
    failed = dict(weights.fetch(wanted, home)) if args.fetch else {}
    _say(f"weights belong in {home} (VBENCH_CACHE_DIR names another folder)")
    gone = weights.absent(wanted, home)
    for file in wanted:
        state = "absent" if file in gone else "there"
        if state == "there" and args.verify:
            state = weights.verify(file, home / file.path) or ("sound" if file.sha256 else "there")
        _say(f"{state:7}{_size([file]):>8}  {file.path}")
        _say(f"{'':9}{file.publisher}, {file.licence}; for {', '.join(file.dimensions)}")
        if file in gone:
            why = failed.get(file) or (
                "--fetch gets it" if file.is_free else "its licence is yours to accept"
            )
            _say(f"{'':9}{why}; put it there from {file.origin}")
    for dimension in asked:
        _say(f"{dimension:24}{_readiness(dimension, home)}")
    if gone:
        free = [f for f in gone if f.is_free]
        more = "" if args.fetch else f": --fetch gets {len(free)} of them, {_size(free)}"
        _say(f"{len(gone)} files are absent, {_size(gone)}{more}")
    if set(asked) & set(weights.GRIT) and not weights.has_detectron():
        _say(f"detectron2 is absent too: {environment.DETECTRON}")
    return 0


def _readiness(dimension: str, home: Path) -> str:
    every = weights.of(dimension)
    gone = weights.absent(every, home)
    parts = [f"{len(gone)} of {len(every)} files absent, {_size(gone)}"] if gone else []
    if dimension in weights.GRIT and not weights.has_detectron():
        parts.append("detectron2 absent")
    return "; ".join(parts) or "ready"


def _size(files: Iterable[weights.File]) -> str:
    whole = sum(f.megabytes for f in files)
    return f"{whole / 1000:.1f} GB" if whole >= 1000 else f"{whole:.0f} MB" if whole >= 1 else "< 1 MB"


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
    found = run.score(args.run, options, _say)
    told = ", ".join(f"{n} {outcome}" for outcome, n in sorted(found.items()))
    _say(f"scores: {told}" if told else "nothing to score")
    show_final(args)
    return errors.EXIT_FAILED_CELLS if found.get("failed") else 0


def show_final(args: argparse.Namespace) -> int:
    """Raw means with their coverage, the total or why there is none, and what it all rests on."""
    job = run.open_run(args.run)
    _say(final.what_it_is(job, args.preset))
    wanted = final.due_dimensions(job, args.preset)
    begun = False
    for method in dict.fromkeys(c.method for c in job.cells):
        found = {d: final.coverage(job, method, d, args.preset) for d in wanted}
        if any(own.scored or own.reason for own in found.values()):
            begun = True
            _say(method)
            _show_method(job, found, args)
    if not begun:
        could = [d for d in job.dimensions() if d in wanted]
        _say(f"  nothing is scored yet of {', '.join(could)}: srbench vbench score {args.run}")
    lines = final.protocol(job, tuple(DIMENSIONS))
    telling = [line for line in lines if line.partition(":")[0] in TELLING]
    software = ", ".join(line.replace(": ", " ", 1) for line in lines if line not in telling)
    for line in [*_detectable(job, args.prompts), *telling, *([f"software: {software}"] if software else [])]:
        _say(f"  {line}")
    return 0


def _show_method(job: Job, found: dict[str, Coverage], args: argparse.Namespace) -> None:
    for dimension, own in found.items():
        if own.scored or own.reason:
            _say(f"  {_line(dimension, own)}")
    rest = [d for d, own in found.items() if own.due and not (own.scored or own.reason)]
    if rest:
        _say(f"  not scored: {', '.join(rest)}")
    if job.is_standard:
        _say(f"  {_total(found, args)}")
    else:
        every, some = len(DIMENSIONS), len(CUSTOM)
        _say(f"  no total: of {every} dimensions only {some} take other prompts than VBench's")


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
        _say(f"{args.target}: {len(DIMENSIONS)} result files")
    else:
        count = export.stage(job, args.method, args.target, args.to, args.encoding)
        _say(f"{args.target}: {count} videos, and nothing else in it")
    return 0


def read_back(args: argparse.Namespace) -> int:
    """Check result files of VBench, VBench-Long or VBench-2.0 and show their means by dimension."""
    found = foreign.read(args.file)
    for dimension, own in found.items():
        _say(f"{dimension:32}{own.mean:10.6f}  {own.counted}")
    for dimension, own in found.items():
        if own.warning:
            print(errors.wrapped(f"warning: {dimension}: {own.warning}", sys.stderr), file=sys.stderr)
    return 0


def _two_or_more(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 2 on")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The commands and what they take."""
    made = errors.Parser(prog="srbench vbench", description=__doc__)
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
        help="the folder of detectron2's source, to be built into it: "
        + ", ".join(weights.GRIT)
        + " want it",
    )
    command("check", check)
    own = command("weights", show_weights)
    every = [*DIMENSIONS, weights.STATIC_FILTER]
    own.add_argument("--dimension", nargs="+", choices=every, metavar="DIMENSION", help="of these only")
    own.add_argument("--fetch", action="store_true", help="get what its licence lets anyone have")
    own.add_argument("--verify", action="store_true", help="hash what is there, where a hash is told")
    for name, does in (("score", score), ("final", show_final)):
        own = command(name, does)
        own.add_argument("run", type=Path, help=RUN)
        own.add_argument(
            "--preset",
            choices=["run", "standard", "mlperf"],
            default="run",
            help="what a total is due: the run's own prompts and seeds (run), all of VBench's with five "
            "seeds (standard), or MLPerf's six dimensions",
        )
        own.add_argument("--prompts", type=_two_or_more, help="tell what a subset of this many could detect")
        own.add_argument("--as-published", action="store_true", help="round raw scores to 4 decimals first")
        if name == "score":
            own.add_argument("--dimension", nargs="+", help="these only (all that the prompts are made for)")
            own.add_argument("--method", nargs="+", help="these only (all but scale rows)")
            own.add_argument("--device", default="cpu", help="as torch names it: cpu, cuda, cuda:1")
            own.add_argument("--encoding", **ENCODING)
            own.add_argument(
                "--static-filter",
                choices=["none", "official"],
                default="none",
                help="of temporal_flickering: none as in cache papers, or VBench's own, which wants weights",
            )
            own.add_argument("--again", action="store_true", help="also what is scored already")
            own.add_argument("--keep-staged", action="store_true", help="keep the encoded videos")
    own = command("export", make_export)
    own.add_argument("run", type=Path, help=RUN)
    own.add_argument("method", help="a method of the run")
    own.add_argument("target", type=Path, help="a zip to write, or a new folder")
    own.add_argument(
        "--to",
        choices=["leaderboard", "vbench2", "long"],
        default="leaderboard",
        help="the leaderboard's zip of results, or a folder of videos for VBench-2.0 or VBench-Long",
    )
    own.add_argument("--encoding", **ENCODING)
    own = command("read", read_back)
    own.add_argument("file", type=Path, nargs="+", help="*_eval_results.json")
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
    errors.finish(main, "what was scored is kept, and the same command goes on")
