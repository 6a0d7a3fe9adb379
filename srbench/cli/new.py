"""`srbench new method NAME`: a commented pair of files that already runs.

NAME.py holds an accelerator, NAME_conf/method/NAME.yaml the method that uses it.  Change what is
inside, keep the names.
"""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from srbench import errors
from srbench.config import registry, words, yaml_files
from srbench.errors import UserError

CODE = '''"""{name}: evaluate the model in one step of a few, reuse its output in the others."""

import contextlib
from typing import Annotated

from pydantic import Field

from srbench.config.registry import plugin_of


@plugin_of("accelerators")
class {cls}:
    """The fields are the YAML: typed, with defaults; a video's key follows from them."""

    every: Annotated[int, Field(ge=1)] = 2  # evaluate in one step of so many
    first: Annotated[int, Field(ge=1)] = 2  # steps at the beginning that are always evaluated

    def attach(self, model, attachment):
        """Called once a segment, with empty caches; on leaving, the model is as before."""
        return _attached(self, model, attachment)

    def inert_steps(self, timesteps, calls_per_step, at_most):
        """After how many steps it may be attached without changing a bit; 0 is always right."""
        return 0

    def expects_reuse(self, timesteps):
        """Whether having reused nothing over these steps can only be a fault."""
        return self.every > 1 and len(timesteps) > self.first + 1


@contextlib.contextmanager
def _attached(settings, model, attachment):
    # The whole model is wrapped, which any family allows; its blocks are model.blocks (Wan) or
    # model.transformer_blocks (CogVideoX), for an idea that works inside.
    own, kept, calls = model.forward, {{}}, 0

    def forward(*args, **kwargs):
        nonlocal calls
        step, branch = attachment.step, calls % attachment.calls_per_step  # branch: prompt, negative prompt
        calls += 1
        due = step < settings.first or (step - settings.first) % settings.every == settings.every - 1
        reused = branch in kept and not due
        if not reused:
            kept[branch] = own(*args, **kwargs)
        attachment.tally_call(reused=reused)  # what is tallied is what the table shows
        return kept[branch]

    model.forward = forward
    try:
        yield
    finally:
        del model.forward
'''

YAML = """# @package method.{name}
# A path: segments of (denoiser, until). For a path of existing parts this file alone is enough.
label: {name} ${{.every}}
every: 2
path:
  - model: large
    accelerators: [{{kind: {name}, every: "${{.....every}}"}}]
# or the large model until a rule fires, then the small one with your accelerator:
# path:
#   - {{model: large, until: {{kind: srdiffusion, delta: 0.01}}}}
#   - {{model: small, accelerators: [{{kind: {name}, every: "${{.....every}}"}}]}}
"""


def check_name(name: str) -> None:
    """Refuse a name that cannot be a plug-in's, or that is taken.  Raises UserError."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,79}", name):
        raise UserError(
            f"name {name!r}",
            "a small letter, then small letters, digits and _, as my_method",
            "choose another",
        )
    if keyword.iskeyword(name) or keyword.iskeyword(_class(name)):
        raise UserError(f"name {name!r}", "one that is no keyword of Python", "choose another")
    if not isinstance(yaml.safe_load(name), str) or name in ("inf", "nan"):
        raise UserError(f"name {name!r}", "one that YAML and Hydra read as a text", "choose another")
    if name in yaml_files.names("method") or name in registry.known("accelerators"):
        raise UserError(f"name {name!r}", "one that srbench does not have yet", "choose another")
    if where := _module(name):
        raise UserError(
            f"name {name!r}, a module of {where}",
            "a name that no installed module has, as a file of this name would hide it",
            "choose another",
        )


def _class(name: str) -> str:
    """The name of the class.

    >>> _class("my_method")
    'MyMethod'
    """
    return name.title().replace("_", "")


def _module(name: str) -> str:
    """Where Python finds a top-level module of this name; empty where there is none."""
    if name == "srbench" or name in sys.stdlib_module_names:
        return "srbench or of Python's standard library"
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a module that is half imported
        return "this Python"
    if spec is None:
        return ""
    files = [Path(spec.origin)] if spec.has_location and spec.origin else []
    found = [f.parent if f.name == "__init__.py" else f for f in files]
    found += [] if files else map(Path, spec.submodule_search_locations or ())
    # one in the working folder is the user's own, and is not written over
    return next((str(p) for p in found if p.resolve().parent != Path().resolve()), "")


def method(name: str, folder: Path) -> list[Path]:
    """Write the pair into a folder.  Raises UserError where a file of the name is there."""
    check_name(name)
    files = {
        folder / f"{name}.py": CODE.format(name=name, cls=_class(name)),
        folder / f"{name}_conf" / "method" / f"{name}.yaml": YAML.format(name=name),
    }
    if there := [p for p in files if os.path.lexists(p)]:
        raise UserError(f"{there[0]} exists", "a name that is free", "choose another, or remove the file")
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UserError(
            f"{path} ({error.strerror})", "a folder to write to", "choose another --folder"
        ) from None
    return list(files)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = errors.Parser(prog="srbench new", description=__doc__)
    parser.add_argument("what", choices=["method"])
    parser.add_argument("name")
    parser.add_argument("--folder", type=Path, default=Path())
    args = parser.parse_args(arguments)
    code, settings = method(args.name, args.folder)
    folder = settings.parents[1]
    print(f"wrote {code} and {settings}\n")
    print(
        shlex.join(["srbench", "check", args.name, "--plugins", str(code)]),
        " # check the rules",
    )
    row = [f"method=[srdiffusion,teacache,{args.name}]", f"plugins=[{words.text(str(code))}]"]
    command = ["python", "-m", "srbench", "+experiment=compare", *row, "--config-dir", str(folder)]
    print(shlex.join(command), " # a row of the table")
    return 0


if __name__ == "__main__":
    errors.finish(main)
