"""The `srbench` program: one name for every command.

Each command parses its own options, so `srbench COMMAND --help` describes them.  `srbench run` is
the same as `python -m srbench`.
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from srbench import errors

app = typer.Typer(
    name="srbench",
    help="Benchmark accelerated text-to-video diffusion: run methods, score their videos, compare them.",
    epilog="Examples:  srbench run +experiment=shapes_delta_sweep  ·  srbench report RUN  ·  "
    "srbench score FOLDER --reference FOLDER",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

# command: (module with a `main`, what the command is for)
COMMANDS = {
    "run": (
        "srbench.__main__",
        "Run an experiment and report it: srbench run +experiment=NAME [key=value ...].",
    ),
    "report": ("srbench.cli.report", "Write the tables, figures and page of stored runs again."),
    "compare": ("srbench.cli.compare", "Compare two runs method by method, with intervals; a gate for CI."),
    "power": ("srbench.cli.power", "Estimate how many prompts and seeds a difference needs."),
    "score": ("srbench.cli.score", "Score videos that any other tool made against reference videos."),
    "calibrate": ("srbench.cli.calibrate", "Fit what an accelerator needs to know of a model."),
    "check": ("srbench.cli.check", "Check a plug-in against the rules that the built-in ones keep."),
    "new": ("srbench.cli.new", "Write the files of a new method."),
    "vbench": (
        "srbench.vbench.__main__",
        "Set up the official VBench, score a run with it, read and export results.",
    ),
    "prompts": ("srbench.cli.extend", "Extend a suite's prompts with a language model."),
    "store": ("srbench.cli.store", "Verify, measure, clean, export and import stored videos and runs."),
    "weights": ("srbench.metrics._lpips_weights", "Install the weights that LPIPS needs."),
    "definitions": ("srbench.cli.definitions", "Show what each definition of a metric gives for two videos."),
}


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"srbench {version('srbench')}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Benchmark accelerated text-to-video diffusion: run methods, score their videos, compare them."""


def _add(name: str, module: str, about: str) -> None:
    @app.command(name, help=about, context_settings=_PASSED_ON, add_help_option=False)
    def command(context: typer.Context) -> None:
        sys.argv = [f"srbench {name}", *context.args]
        errors.finish(importlib.import_module(module).main, "nothing is lost")


for _name, (_module, _about) in COMMANDS.items():
    _add(_name, _module, _about)


def main() -> None:
    """Run the program; the entry point of the console script."""
    app(prog_name="srbench")
