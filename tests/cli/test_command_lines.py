"""Options that a command does not know: the nearest one is told, by every command in the same way."""

from __future__ import annotations

import importlib
import io
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from srbench.cli.app import COMMANDS
from srbench.errors import Parser, wrapped

SOURCE = Path(__file__).parents[2] / "srbench"


@pytest.fixture
def parser() -> Parser:
    made = Parser(prog="tool")
    commands = made.add_subparsers(required=True)
    score = commands.add_parser("score")
    score.add_argument("run")
    score.add_argument("--dimension", nargs="+")
    score.add_argument("--shift", type=float)
    commands.add_parser("check")
    return made


@pytest.mark.parametrize(
    ("line", "given", "do"),
    [
        ("score --dimensions color", "--dimensions", "did you mean --dimension?"),
        ("score run --dimensions=color", "--dimensions", "did you mean --dimension?"),
        ("score run -dimension color", "-dimension", "did you mean --dimension?"),
        ("score run --zzz", "--zzz", "known: --dimension, --help, --shift"),
        ("check --shift 3", "--shift", "known: --help"),
    ],
)
def test_the_command_that_does_not_know_it_says_so(
    parser: Parser, capsys: pytest.CaptureFixture[str], line: str, given: str, do: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(line.split())
    told = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert told[0] == f"srbench: given:    {given}"
    assert told[1] == f"expected: an option of tool {line.split()[0]}"
    assert told[2].startswith(f"do:       {do}") and len(told) == 3


def test_what_argparse_takes_is_taken(parser: Parser) -> None:
    """Beginnings of options, their values after =, negative numbers, and anything after --."""
    assert parser.parse_args(["score", "run", "--dim", "a", "b"]).dimension == ["a", "b"]
    assert parser.parse_args(["score", "--shift=-1.5", "run"]).shift == -1.5
    assert parser.parse_args(["score", "--shift", "-2", "run"]).shift == -2
    assert parser.parse_args(["score", "--", "--odd"]).run == "--odd"


def test_a_word_too_many_shows_the_usage_of_its_command(
    parser: Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["score", "run", "other"])
    told = capsys.readouterr().err
    assert told.startswith("usage: tool score ") and "unrecognized arguments: other" in told


@pytest.mark.parametrize(
    ("command", "line", "nearest"),
    [
        ("vbench", "score run --dimensions color", "--dimension"),
        ("vbench", "weights --verfy", "--verify"),
        ("score", "videos --refrence large", "--reference"),
        ("compare", "a b --margins psnr=1", "--margin"),
        ("power", "run large --diference 1", "--difference"),
        ("prompts", "vbench --exports a.json", "--export"),
        ("check", "pab --famly shapes", "--family"),
        ("new", "method mine --folders x", "--folder"),
        ("calibrate", "teacache --familly shapes", "--family"),
        ("report", "run --papers", "--paper"),
        ("store", "gc store run --states --deleted", "--delete"),
        ("definitions", "a.mp4 --refrence b.mp4", "--reference"),
        ("weights", "--nets alex", "--net"),
    ],
)
def test_every_command_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    line: str,
    nearest: str,
) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *line.split()])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(COMMANDS[command][0]).main()
    assert ended.value.code == 2 and f"did you mean {nearest}?" in capsys.readouterr().err


def test_no_command_has_a_parser_that_does_not() -> None:
    plain = [p for p in SOURCE.rglob("*.py") if "argparse.ArgumentParser(" in p.read_text("utf-8")]
    assert plain == []  # errors.Parser is a class of it


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_lines_break_between_words_and_elsewhere_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    path = "/a/path/that/is/to/be/copied/and/is/longer/than/the/terminal/is/wide"
    text = f"given:    {'word ' * 15}{path}\ndo:       it"
    told = wrapped(text, Terminal()).split("\n")
    assert len(told) > 2 and all(len(line) <= 60 or line.strip() == path for line in told)
    assert " ".join(" ".join(told).split()) == " ".join(text.split())
    assert told[1].startswith("    ") and told[-1] == "do:       it"
    assert wrapped(text, io.StringIO()) == text


def ended(code: str, tail: str) -> tuple[int, str]:
    """Exit code and stderr of a command whose output goes to another one."""
    inner = f"from srbench import errors\nerrors.finish(lambda: {code})"
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(inner)} | {tail}; exit ${{PIPESTATUS[0]}}"
    # unbuffered, Python would drop what a pipe does not take at once
    env = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env)
    return done.returncode, done.stderr


def test_a_reader_that_stops_ends_a_command_without_a_traceback() -> None:
    assert ended("[print('x' * 99) for _ in range(9999)] and 0", "head -1") == (141, "")
    assert ended("print('x') or 0", "cat") == (0, "")


def test_so_does_what_rich_prints() -> None:
    """Not 1, which from `compare` says that a number got worse, and from a run that cells failed."""
    table = "__import__('rich.console').console.Console().print"
    assert ended(f"[{table}('x' * 99) for _ in range(9999)] and 0", "head -1") == (141, "")


def test_all_of_the_work_is_done_though_nobody_reads(tmp_path: Path) -> None:
    """Also where nobody reads stderr, and where there is no standard output at all."""
    file = tmp_path / "table.md"
    code = f"[print('x' * 99) for _ in range(9999)] and open({str(file)!r}, 'w').write('whole') and 0"
    for tail, wanted in (("head -1", 141), ("cat", 0)):
        assert ended(code, tail) == (wanted, "")
        assert file.read_text() == "whole"
        file.unlink()
    noisy = f"[print('x' * 99, file=__import__('sys').stderr) for _ in range(9999)] and {code}"
    inner = f"from srbench import errors\nerrors.finish(lambda: {noisy})"
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(inner)}"
    assert subprocess.run(["bash", "-c", f"{line} 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"]).returncode == 141
    assert file.read_text() == "whole"
    assert subprocess.run(["bash", "-c", f"{line} >&- 2>/dev/null"]).returncode == 0


def test_help_that_nobody_reads_to_its_end_ends_so() -> None:
    raw = "formatter_class=__import__('argparse').RawDescriptionHelpFormatter"
    code = f"errors.Parser(description='x\\n' * 999_999, {raw}).parse_args(['--help'])"
    assert ended(code, "head -1") == (141, "")


def test_every_command_ends_so() -> None:
    commands = [p for p in SOURCE.rglob("*.py") if "Parser(prog=" in p.read_text("utf-8")]
    plain = {p.stem for p in commands if "finish(main" not in p.read_text("utf-8")}
    assert len(commands) > 10 and plain == {"train"}  # which makes the embedded family's weights


def test_a_pipe_that_breaks_elsewhere_is_no_readers_doing() -> None:
    code, said = ended("(_ for _ in ()).throw(BrokenPipeError('a worker died'))", "cat")
    assert code == 1 and "BrokenPipeError: a worker died" in said
