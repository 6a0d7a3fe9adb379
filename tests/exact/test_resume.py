"""A state frozen to a file, thawed in another process, ends in the same bits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

STEPS, SWITCH = 8, 4
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def hybrid(method):
    large = {"model": "large", "until": {"kind": "fixed_step", "step": SWITCH}}
    return method("hybrid", large, {"model": "small"}, steps=STEPS)


@pytest.fixture(scope="module")
def states(hybrid, walked, sampler):
    """The states of an uninterrupted run, before every step and at the end."""
    kept = [sampler.start(7, STEPS)]
    walked(hybrid, on_step=lambda branch: kept.append(branch.state))
    return kept


def write(sampler, state, path):
    tensors, meta = sampler.freeze(state)
    save_file(tensors, path, metadata=meta)


def read(sampler, path):
    with safe_open(path, "pt") as file:
        return sampler.thaw({k: file.get_tensor(k) for k in file.keys()}, file.metadata())


def rest(sampler, hybrid, state, text):
    """The state at the end, and the records of the steps to it."""
    records = []
    while not state.done:
        segment = hybrid.segments[state.index >= SWITCH]
        state, record = sampler.step(segment.denoiser, state, text)
        records.append(record)
    return state, records


@pytest.mark.parametrize("k", range(STEPS + 1))
def test_resumed_after_every_step(k, states, hybrid, sampler, text, walked, tmp_path):
    write(sampler, states[k], tmp_path / "state.safetensors")
    thawed = read(sampler, tmp_path / "state.safetensors")
    assert thawed.index == k
    assert torch.equal(thawed.latents, states[k].latents)
    state, records = rest(sampler, hybrid, thawed, text)
    assert torch.equal(state.latents, states[-1].latents)
    assert [r.index for r in records] == list(range(k, STEPS))


def test_a_resumed_run_has_the_trace_of_an_uninterrupted_one(states, hybrid, sampler, text, walked, tmp_path):
    """D at the first step after resuming compares with the step before, as it would have."""
    whole = walked(hybrid)["hybrid"].trace.steps
    write(sampler, states[5], tmp_path / "state.safetensors")
    _, records = rest(sampler, hybrid, read(sampler, tmp_path / "state.safetensors"), text)
    assert tuple(records) == whole[5:]


@pytest.mark.parametrize("k", [1, 3])
def test_frozen_states_on_wans_own_sigma_grid_resume_too(k, method, wan_grid, text, walked, tmp_path):
    small = method("small", {"model": "small"}, steps=5)
    kept = [wan_grid.start(7, 5)]
    walked(small, on=wan_grid, on_step=lambda branch: kept.append(branch.state))
    write(wan_grid, kept[k], tmp_path / "state.safetensors")
    state = read(wan_grid, tmp_path / "state.safetensors")
    while not state.done:
        state, _ = wan_grid.step(small.segments[0].denoiser, state, text)
    assert torch.equal(state.latents, kept[-1].latents)


def test_stepping_on_from_a_state_leaves_the_state_alone(states, hybrid, sampler, text):
    before = sampler.freeze(states[2])
    before = {k: v.clone() for k, v in before[0].items()}, before[1]
    rest(sampler, hybrid, states[2], text)
    tensors, meta = sampler.freeze(states[2])
    assert meta == before[1]
    assert tensors.keys() == before[0].keys()
    assert all(torch.equal(tensors[k], v) for k, v in before[0].items())


ANOTHER_PROCESS = """
import sys
import torch
from pathlib import Path
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from pydantic import TypeAdapter
from srbench.config.experiment import Denoiser
from srbench.families.base import Text
from srbench.families.wan import Wan

torch.set_num_threads(1)
folder, switch = Path(sys.argv[1]), int(sys.argv[2])
sampler = TypeAdapter(Wan).validate_json((folder / "family.json").read_bytes()).open()
text = Text(**load_file(folder / "text.safetensors"))
for frozen in sorted(folder.glob("state-*.safetensors")):
    with safe_open(frozen, "pt") as file:
        state = sampler.thaw({k: file.get_tensor(k) for k in file.keys()}, file.metadata())
    while not state.done:
        denoiser = Denoiser(model="large" if state.index < switch else "small")
        state, _ = sampler.step(denoiser, state, text)
    save_file({"latents": state.latents.contiguous()}, folder / frozen.name.replace("state", "end"))
"""


def test_resumed_in_another_process(states, sampler, text, family, tmp_path):
    from pydantic import TypeAdapter

    some = (1, 2, SWITCH, STEPS - 1)
    for k in some:
        write(sampler, states[k], tmp_path / f"state-{k}.safetensors")
    save_file(
        {"prompt": text.prompt.contiguous(), "negative": text.negative.contiguous()},
        tmp_path / "text.safetensors",
    )
    (tmp_path / "family.json").write_bytes(TypeAdapter(type(family)).dump_json(family))
    subprocess.run([sys.executable, "-c", ANOTHER_PROCESS, str(tmp_path), str(SWITCH)], cwd=ROOT, check=True)
    for k in some:
        end = load_file(tmp_path / f"end-{k}.safetensors")["latents"]
        assert torch.equal(end, states[-1].latents), k
