"""`python -m srbench.new method NAME`: a commented pair of files that already runs.

NAME.py holds an accelerator, NAME_conf/method/NAME.yaml the method that uses it.  Change what is
inside, keep the names.
"""

from __future__ import annotations

import keyword
from collections.abc import Sequence
from pathlib import Path

from srbench import configs, errors, registry
from srbench.errors import UserError
from srbench.store.objects import write_text

CODE = '''"""{name}: evaluate the model in one step of a few, reuse its output in the others."""

import contextlib
from typing import Annotated

from pydantic import Field

from srbench.registry import plugin_of


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
    """Refuse a name that cannot be a module's, or that is taken.  Raises UserError."""
    if not name.isidentifier() or keyword.iskeyword(name) or name != name.lower():
        raise UserError(f"name {name!r}", "small letters, digits and _, as my_method", "choose another")
    if name in configs.names("method") or name in registry.known("accelerators"):
        raise UserError(f"name {name!r}", "one that srbench does not have yet", "choose another")


def method(name: str, folder: Path) -> list[Path]:
    """Write the pair into a folder.  Raises UserError where a file of the name is there."""
    check_name(name)
    files = {
        folder / f"{name}.py": CODE.format(name=name, cls=name.title().replace("_", "")),
        folder / f"{name}_conf" / "method" / f"{name}.yaml": YAML.format(name=name),
    }
    if there := [p for p in files if p.exists()]:
        raise UserError(f"{there[0]} exists", "a name that is free", "choose another, or remove the file")
    for path, text in files.items():
        write_text(path, text, mode=0o644)
    return list(files)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = errors.Parser(prog="python -m srbench.new", description=__doc__)
    parser.add_argument("what", choices=["method"])
    parser.add_argument("name")
    parser.add_argument("--folder", type=Path, default=Path())
    args = parser.parse_args(arguments)
    code, yaml = method(args.name, args.folder)
    folder = yaml.parents[1]
    print(f"wrote {code} and {yaml}\n")
    print("does it keep the rules?   python -m srbench.conform", args.name, "--plugins", code)
    print(
        "a row beside the others:  python -m srbench +experiment=compare"
        f" 'method=[srdiffusion,teacache,{args.name}]' 'plugins=[{code}]' --config-dir {folder}"
    )
    return 0


if __name__ == "__main__":
    errors.finish(main)
