"""A plug-in that breaks a rule is caught by that rule: none of them passes everything."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import pytest

from srbench.cli.check import Lab, Subject, main, path, rules, tallies_what_it_computed, try_rule
from srbench.config import registry
from srbench.config.experiment import Denoiser
from srbench.errors import UserError

LAB = Lab("shapes", steps=8)

HEAD = """
import contextlib
from srbench.config.registry import plugin_of
calls = []
"""
ACCELERATOR = (
    HEAD
    + """
@plugin_of("accelerators")
class Broken:
    strength: float = 0.5

    def attach(self, model, attachment):
        return attached(self, model, attachment)

    def inert_steps(self, timesteps, calls_per_step, at_most):
        return INERT

    def expects_reuse(self, timesteps):
        return EXPECTS

@contextlib.contextmanager
def attached(settings, model, attachment):
"""
)
HOOKED = """
    h = model.register_forward_hook(hook)
    try:
        yield
    finally:
        h.remove()
"""
# name → the body of its context manager, how many steps it calls inert, the rules that it breaks
ACCELERATORS = {
    "stays": (
        "    model.register_forward_hook(lambda m, a, out: (out[0] * 0.9,))\n"
        "    attachment.tally_module(reused=True)\n    yield\n",
        0,
        {"leaves_the_model_as_it_was", "leaves_the_model_after_an_error"},
    ),
    "stays_after_an_error": (
        "    h = model.register_forward_hook(lambda m, a, out: (out[0] * 0.9,))\n    yield\n    h.remove()\n",
        0,
        {"leaves_the_model_after_an_error"},
    ),
    "remembers": (
        "    def hook(m, a, out):\n        calls.append(1)\n        attachment.tally_module(reused=True)\n"
        "        return (out[0] * (1 + 0.001 * len(calls)),)\n" + HOOKED,
        0,
        {"is_deterministic_and_starts_afresh", "survives_a_fork"},
    ),
    "silent": (
        "    hook = lambda m, a, out: (out[0] * 0.9,)\n" + HOOKED,
        0,
        {"reports_what_it_reused"},
    ),
    "not_inert": (
        "    def hook(m, a, out):\n        attachment.tally_module(reused=True)\n"
        "        return (out[0] * 0.9,)\n" + HOOKED,
        3,
        {"inert_steps_are_inert"},
    ),
}


# Reuse that is not tallied: name → the body of the plug-in's context manager, and what the rule reports.
WRAPPED = """
    own, kept, calls = OWNER.forward, {}, [0]
    def forward(*args, **kwargs):
        calls[0] += 1
        reuse = bool(kept) and attachment.step % 2 == 1
        if not reuse:
            kept[0] = own(*args, **kwargs)
        TALLY
        return kept[0]
    OWNER.forward = forward
    try:
        yield
    finally:
        del OWNER.forward
"""
ALL_BLOCKS = """
    with contextlib.ExitStack() as stack:
        for block in model.blocks:
            stack.enter_context(passing(block, attachment))
        yield

@contextlib.contextmanager
def passing(block, attachment):
    own = block.forward
    def forward(hidden_states, *args, **kwargs):
        return hidden_states if attachment.step % 2 else own(hidden_states, *args, **kwargs)
    block.forward = forward
    try:
        yield
    finally:
        del block.forward
"""
UNCOUNTED = {
    "whole_evaluations": (WRAPPED.replace("OWNER", "model").replace("TALLY", "pass"), "evaluations, and"),
    "every_block": (ALL_BLOCKS, "evaluations, and"),
    "one_block": (
        WRAPPED.replace("OWNER", "model.blocks[1]").replace("TALLY", "pass"),
        "blocks.1 ran ",
    ),
    "attention": (
        WRAPPED.replace("OWNER", "model.blocks[0].attn1").replace("TALLY", "pass"),
        "blocks.0.attn1 ran ",
    ),
    "counts_too_much": (
        WRAPPED.replace("OWNER", "model")
        .replace("bool(kept) and attachment.step % 2 == 1", "False")
        .replace("TALLY", "attachment.tally_call(reused=attachment.step % 2 == 1)"),
        "evaluations, and",
    ),
}


@pytest.mark.parametrize("kind", UNCOUNTED)
def test_reuse_that_is_not_tallied_is_found_whatever_the_plug_in_expects(kind: str, tmp_path: Path) -> None:
    """The model's own code is counted, and compared with the tally."""
    body, said = UNCOUNTED[kind]
    source = ACCELERATOR.replace("INERT", "0").replace("EXPECTS", "False") + body
    (tmp_path / f"{kind}.py").write_text(source)
    registry.load([tmp_path / f"{kind}.py"])
    seen = try_rule(tallies_what_it_computed, Subject("accelerators", {"kind": kind}, LAB))
    assert seen is not None and said in seen, seen


def test_the_template_that_tallies_is_kept(tmp_path: Path) -> None:
    body = WRAPPED.replace("OWNER", "model").replace("TALLY", "attachment.tally_call(reused=reuse)")
    # one cache for both branches: a poor method, and an honest count
    (tmp_path / "honest.py").write_text(accelerator(body))
    registry.load([tmp_path / "honest.py"])
    assert try_rule(tallies_what_it_computed, Subject("accelerators", {"kind": "honest"}, LAB)) is None


def test_an_accelerator_knows_the_step_however_late_it_is_attached(tmp_path: Path) -> None:
    """The place in the schedule, also behind a switch and in both guidance calls."""
    body = "    def hook(m, a, out):\n        calls.append((attachment.step, attachment.timestep))\n" + HOOKED
    (tmp_path / "knows.py").write_text(accelerator(body))
    registry.load([tmp_path / "knows.py"])
    mine = registry.build("accelerators", {"kind": "knows"}, "accelerators")
    method = path("late", (Denoiser(model="large"), 3), (Denoiser(model="large", accelerators=(mine,)), None))
    with contextlib.suppress(UserError):  # it reuses nothing
        LAB.walk(method)
    times = LAB.family.timesteps(None)
    told = sys.modules[type(mine).__module__].calls
    assert told == [(i, times[i]) for i in range(3, 8) for _ in range(2)]


def accelerator(body: str, inert: int = 0) -> str:
    return ACCELERATOR.replace("INERT", str(inert)).replace("EXPECTS", "True") + body


def broken(kind: str, folder: Path, source: str, group: str) -> set[str]:
    """The rules that the plug-in in `source` does not keep."""
    file = folder / f"{kind}.py"
    file.write_text(source)
    registry.load([file])
    subject = Subject(group, {"kind": kind}, LAB)
    return {r.__name__ for r in rules(group) if try_rule(r, subject) is not None}


@pytest.mark.parametrize("kind", ACCELERATORS)
def test_a_broken_accelerator_is_caught(kind: str, tmp_path: Path) -> None:
    body, inert, expected = ACCELERATORS[kind]
    # a shared model that a test spoilt must not reach the next one
    LAB.__dict__.clear()
    LAB.__init__("shapes", 8)  # type: ignore[misc]
    found = broken(kind, tmp_path, accelerator(body, inert), "accelerators")
    assert expected <= found


RULE = (
    HEAD
    + """
@plugin_of("rules")
class Broken:
    step: int = 3

    def fires(self, trace, entered):
        FIRES

    def window(self, timesteps):
        return WINDOW

    def expected(self, timesteps):
        return 3, "set"
"""
)


@pytest.mark.parametrize(
    ("kind", "fires", "window", "rule"),
    [
        ("counts", "calls.append(1); return len(calls) % 7 == 0", "1, len(timesteps)", "is_a_pure_function"),
        ("too_soon", "return len(trace) >= 2", "3, len(timesteps)", "window_is_honest"),
        ("too_late", "return len(trace) >= 9", "3, 5", "window_is_honest"),
        ("no_answer", "return None", "1, len(timesteps)", "answers_yes_or_no"),
        ("stumbles", "return trace.steps[5].index > 3", "1, len(timesteps)", "answers_yes_or_no"),
    ],
)
def test_a_broken_rule_is_caught(kind: str, fires: str, window: str, rule: str, tmp_path: Path) -> None:
    source = RULE.replace("FIRES", fires).replace("WINDOW", window)
    assert rule in broken(kind, tmp_path, source, "rules")


def test_a_rule_may_count_from_where_its_segment_was_entered(tmp_path: Path) -> None:
    source = RULE.replace("FIRES", "return len(trace) - entered >= 15").replace("WINDOW", "15, 15")
    assert broken("since", tmp_path, source.replace("return 3,", "return 15,"), "rules") == set()


METRIC = (
    HEAD
    + """
import numpy as np
from srbench.metrics.base import check_pair
from srbench.store.records import MetricFacts

@plugin_of("metrics")
class Broken:
    weight: TYPE = 1.0

    @property
    def facts(self):
        return MetricFacts(name="broken", version=1, unit="", higher_is_better=HIGHER,
                           lower_bound=0.0, upper_bound=UPPER)

    def __call__(self, video, reference):
        CHECK
        return np.abs(video.astype(float) - reference).mean((1, 2, 3))
"""
)


@pytest.mark.parametrize(
    ("kind", "changes", "rule"),
    [
        ("wrong_way", {"HIGHER": "True"}, "noise_makes_it_worse"),
        ("out_of_bounds", {"UPPER": "1.0"}, "values_lie_in_their_bounds"),
        (
            "takes_anything",
            {"CHECK": "reference = reference[:, :32].mean() + 0 * video"},
            "other_shapes_are_refused",
        ),
        ("untyped", {"TYPE": "object"}, "wrong_types_are_refused"),
    ],
)
def test_a_broken_metric_is_caught(kind: str, changes: dict[str, str], rule: str, tmp_path: Path) -> None:
    right = {"HIGHER": "False", "UPPER": "255.0", "CHECK": "check_pair(video, reference)", "TYPE": "float"}
    source = METRIC
    for word, value in (right | changes).items():
        source = source.replace(word, value)
    assert broken(kind, tmp_path, source, "metrics") == {rule}


def test_the_command_names_the_rule_and_why_it_matters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hasty.py"
    file.write_text(RULE.replace("FIRES", "return len(trace) >= 2").replace("WINDOW", "3, 5"))
    assert main(["hasty", "--plugins", str(file)]) == 1
    told = capsys.readouterr().out
    assert "NOT KEPT    window is honest" in told and "price" in told and "1 rules are not kept" in told
    assert main(["srdiffusion"]) == 0
    with contextlib.suppress(SystemExit):
        main(["--help"])
    assert "srbench check" in capsys.readouterr().out
