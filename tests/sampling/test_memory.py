"""Kept states: each its own object, found by what led to it, and never trusted when damaged."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from srbench.config.experiment import Denoiser, Method, Segment
from srbench.config.registry import build
from srbench.families.base import State
from srbench.sampling.memory import StoredMemory
from srbench.sampling.walk import Branch, Traveller, take_up
from srbench.store.objects import STATE, Store
from srbench.trace import Step, Trace

STEPS = 6
LARGE = Denoiser(model="large")


class Sampler:
    """States of one number; no model."""

    device = torch.device("cpu")

    def freeze(self, state: State) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        return {"latents": state.latents.clone()}, {"index": str(state.index)}

    def thaw(self, tensors: dict[str, torch.Tensor], meta: dict[str, str]) -> State:
        return state(int(meta["index"]), float(tensors["latents"]))


def state(index: int, value: float = 0.0) -> State:
    return State(index, torch.tensor(value), SimpleNamespace(timesteps=range(STEPS)))


def method(leaves: int) -> Method:
    until = build("rules", {"kind": "fixed_step", "step": leaves}, "until")
    always = build("rules", {"kind": "always"}, "until")
    small = Segment(denoiser=Denoiser(model="small"), until=always)
    return Method(name="m", label="m", segments=(Segment(denoiser=LARGE, until=until), small))


def entry(leaves: int = STEPS) -> Branch:
    return Branch(LARGE, state(0), (Traveller(method(leaves)),))


def walked(steps: int, denoiser: Denoiser = LARGE) -> list[Branch]:
    """The branches after each step, their states' values 10, 20, …"""
    done = [Step(i, 1.0, 0.0, 1.0, denoiser.id, denoiser.model, None, 2, 0) for i in range(steps)]
    start = replace(entry(), denoiser=denoiser)
    return [
        replace(start, state=state(i, 10.0 * i), trace=Trace(tuple(done[:i])), path=(denoiser.digest,) * i)
        for i in range(1, steps + 1)
    ]


def memory(folder: Path, policy: str = "all") -> StoredMemory:
    sampler: Any = Sampler()
    return StoredMemory(Store(folder), sampler, "unit", policy, lambda roles: "+".join(sorted(roles)))


def keep(kept: StoredMemory, start: Branch, steps: list[Branch], forked: Sequence[int]) -> None:
    """Walk a segment with these branches after each step."""
    notes = kept.begin(start)
    for branch in steps:
        notes.note(branch, branch.state.index in forked)
    notes.write(steps[-1].trace)


def indices(kept: StoredMemory) -> tuple[int, ...]:
    known = kept.recall(entry())
    return known.indices if known else ()


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("all", (1, 2, 3, 4, 5, 6)), ("window(2,4)", (2, 3, 4, 5)), ("forks", (5,)), ("none", ())],
)
def test_what_a_policy_keeps_of_a_trunk_that_a_method_left_after_five_steps(
    tmp_path: Path, policy: str, kept: tuple[int, ...]
) -> None:
    own = memory(tmp_path, policy)
    keep(own, entry(), walked(6), [5])
    assert indices(own) == kept
    assert len(list(tmp_path.glob(f"objects/*/*{STATE}"))) == len(kept)


def test_a_new_fork_adds_one_object_and_rewrites_none(tmp_path: Path) -> None:
    keep(memory(tmp_path, "forks"), entry(), walked(6), [2])
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob(f"objects/*/*{STATE}")}
    keep(memory(tmp_path, "forks"), entry(), walked(4), [4])
    after = {p: p.stat().st_mtime_ns for p in tmp_path.glob(f"objects/*/*{STATE}")}
    assert before.items() < after.items() and len(after) == 2
    known = memory(tmp_path).recall(entry())
    assert known is not None and known.indices == (2, 4) and len(known.trace) == 6, "the longer trace stays"


def test_a_branch_is_taken_up_as_late_as_its_traveller_stays(tmp_path: Path) -> None:
    keep(memory(tmp_path), entry(), walked(6), [])
    ahead = take_up(entry(leaves=4), memory(tmp_path).recall(entry()))
    assert ahead is not None
    assert (ahead.state.index, float(ahead.state.latents), len(ahead.trace)) == (4, 40.0, 4)
    assert ahead.seconds == (None,) * 4


def test_a_damaged_state_is_set_aside_and_the_one_before_it_taken(tmp_path: Path) -> None:
    own = memory(tmp_path)
    keep(own, entry(), walked(6), [])
    path = own.store.get(own.state_key(entry(), 4))
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    later = memory(tmp_path)
    ahead = take_up(entry(leaves=4), later.recall(entry()))
    assert ahead is not None and ahead.state.index == 3
    assert (tmp_path / "damaged" / path.name).exists()


def test_accelerated_segments_keep_nothing(tmp_path: Path) -> None:
    cached = Denoiser(model="large", accelerators=(build("accelerators", {"kind": "pab"}, "a"),))
    start = replace(entry(), denoiser=cached)
    keep(memory(tmp_path), start, walked(6, cached), [3])
    assert memory(tmp_path).recall(start) is None and not list(tmp_path.glob("objects/*/*"))


def test_a_full_disk_costs_the_state_and_not_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("srbench.sampling.memory.save_file", full)
    keep(memory(tmp_path), entry(), walked(6), [])
    assert indices(memory(tmp_path)) == ()


def test_another_unit_or_past_knows_nothing_of_it(tmp_path: Path) -> None:
    keep(memory(tmp_path), entry(), walked(6), [])
    other = memory(tmp_path)
    other.unit = "another prompt"
    assert other.recall(entry()) is None
    small = [Step(0, 1.0, 0.0, 1.0, "small#1", "small", None, 2, 0)]
    assert memory(tmp_path).recall(replace(entry(), trace=Trace(tuple(small)))) is None


def test_keys_hold_the_whole_of_a_denoisers_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace shows eight digits of it, which two denoisers of many may share."""
    one, other = LARGE, Denoiser(model="large", guidance_scale=2.0)
    monkeypatch.setattr(Denoiser, "id", "large#00000000")
    own, small = memory(tmp_path), Denoiser(model="small")
    begun = [replace(walked(3, d)[-1], denoiser=small) for d in (one, other)]
    assert begun[0].trace == begun[1].trace
    begun += [replace(entry(), denoiser=d) for d in (one, other)]
    assert len({own.trace_key(b) for b in begun}) == len({own.state_key(b, 5) for b in begun}) == 4
    # what is taken up has the same name as what is walked
    keep(own, entry(), walked(6), [])
    ahead = take_up(entry(leaves=4), own.recall(entry()))
    assert ahead is not None and ahead.path == walked(4)[-1].path
