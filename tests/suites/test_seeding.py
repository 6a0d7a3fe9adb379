"""The noise's seed: the seed's number, or derived from the prompt's place in its list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hydra
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srbench.__main__ import RUN_KEYS, compose, job
from srbench.config import yaml_files
from srbench.config.experiment import Experiment, check
from srbench.config.registry import identity
from srbench.planning import plan
from srbench.store.records import read_run
from srbench.suites.base import Seeding
from srbench.suites.prompts import Prompts
from srbench.suites.vbench import DIMENSIONS, VBench

GROUND = {"torch": "a version"}
METHODS = {
    "large": {"path": [{"model": "large"}]},
    "other": {"noise": "partner", "path": [{"model": "large"}]},
}
HUB = {"source": "a/hub", "revision": "0" * 40}
FAMILY = {"kind": "wan", "name": "x", "scale": "tiny", "height": 32, "width": 32, "frames": 5, "fps": 8}
FAMILY |= {role: HUB for role in ("large", "small", "components")}
# Taken before there was a `seeding`, own weights or an own sampler: nobody's store is computed again.
PROTOCOL = "b8c5a7ccc92d"
VIDEOS = ["d1aa58b3ead6", "2e84232fa735", "2e84232fa735", "d1aa58b3ead6"]
CELLS = ["8ac881526bdd", "30ea57c58457", "5a4de212797e", "e7e1a8638e02"]


def experiment(**suite: Any) -> Experiment:
    plain = {
        "name": "trial",
        "family": FAMILY,
        "suite": {"kind": "prompts", "prompts": [f"a cat, {i}" for i in range(8)], "seeds": 4} | suite,
        "method": METHODS,
        "metric": {},
        "engine": {"kind": "local"},
    }
    return check(plain)


def keys(made: Experiment) -> dict[tuple[int, int, str], tuple[str, str]]:
    """Video and cell by prompt, seed number and method."""
    names = plan.Keys(made, GROUND)
    return {
        (u.prompt_index, u.seed, m.name): (names.video(m, u), names.cell(m, u))
        for u in plan.units(made)
        for m in made.methods
    }


def test_the_default_leaves_every_key_and_record_as_it_was():
    made = experiment(prompts=["a cat"], seeds=2)
    assert plan.protocol(made, GROUND) == PROTOCOL
    assert [video[:12] for video, _ in keys(made).values()] == VIDEOS
    assert [cell[:12] for _, cell in keys(made).values()] == CELLS
    assert [m.id for m in made.methods] == ["3a3606a384a0", "aaddc0107e33"]
    assert made.methods[0].segments[0].denoiser.digest[:12] == "701de78a7255"
    assert plan.Keys(made, GROUND).unit("a cat", 0)[:12] == "4daefac34ea3"
    assert "seeding" not in identity(made.suite)
    assert not {"weights", "sampler"} & identity(made.methods[0]).keys()


def test_written_out_the_default_is_the_default():
    plain, written = experiment(), experiment(seeding={"prompt": 0, "seed": 1})
    assert keys(plain) == keys(written)
    assert plan.protocol(plain, GROUND) == plan.protocol(written, GROUND)


@given(a=st.integers(0, 10**6), b=st.integers(1, 10**6), i=st.integers(0, 7), j=st.integers(0, 10_000))
def test_the_noises_seed_is_a_i_plus_b_j(a: int, b: int, i: int, j: int):
    made = experiment(seeds=[j, j ^ 1], seeding={"prompt": a, "seed": b})
    large, partner = made.methods
    unit = next(u for u in plan.units(made) if u.prompt_index == i and u.seed == j)
    assert unit.noise == unit.noise_seed(large) == a * i + b * j
    assert unit.noise_seed(partner) == a * i + b * (j ^ 1)  # of the same prompt's pair


@pytest.mark.parametrize(("seeds", "fits"), [([2**53], True), ([2**62], False)])
def test_seeds_that_no_generator_takes_are_refused_before_a_model_loads(seeds: list[int], fits: bool):
    made = experiment(seeds=seeds, seeding={"prompt": 5, "seed": 1000})
    told = [m for m in plan.mistakes(made) if "noise's seed" in m.got]
    assert (told == []) == fits
    if told:
        assert "5 · i + 1000 · j" in told[0].got and "2⁶³" in told[0].expected


@given(a=st.integers(1, 10**6), b=st.integers(1, 10**6))
def test_it_is_in_the_protocol_and_equal_noise_is_one_video(a: int, b: int):
    plain, seeded = experiment(), experiment(seeding={"prompt": a, "seed": b})
    assert plan.protocol(plain, GROUND) != plan.protocol(seeded, GROUND)
    ours, theirs = keys(plain), keys(seeded)
    assert ours.keys() == theirs.keys()
    for key, (video, _) in theirs.items():
        noise = next(u for u in plan.units(seeded) if (u.prompt_index, u.seed) == key[:2])
        same = noise.noise_seed(seeded.method(key[2])) == plain.method(key[2]).noise_seed(key[1])
        assert (ours[key][0] == video) == same
    assert len({cell for _, cell in theirs.values()}) == len(theirs)


def test_another_list_is_another_protocol_and_a_subset_is_not():
    """For in another list a prompt has another place, and another noise."""

    def protocol(**suite: Any) -> str:
        return plan.protocol(experiment(seeding={"prompt": 100}, **suite), GROUND)

    assert protocol(prompts=["a", "b"]) != protocol(prompts=["b", "a"])
    shapes = {"kind": "shapes", "seeds": 1}
    assert protocol(**shapes, prompts=4) == protocol(**shapes, prompts=8)
    by_seed = [experiment(prompts=p, seeding={"seed": 7}) for p in (["a", "b"], ["b", "a"])]
    assert plan.protocol(by_seed[0], GROUND) == plan.protocol(by_seed[1], GROUND)


def test_a_shard_has_the_seeds_of_the_whole():
    whole = plan.units(experiment(seeding={"prompt": 100}))
    parts = [plan.Shard(i, 3).part(whole) for i in (1, 2, 3)]
    assert sorted(u.noise for p in parts for u in p) == sorted(u.noise for u in whole)
    assert len({u.noise for u in whole}) == len(whole)


def test_a_run_that_another_job_lengthened_keeps_them():
    """A prompt's number in the run is its place in the record; its place in the suite's list is its own."""
    made = experiment(seeding={"prompt": 100})
    prompts = made.suite.list_prompts()
    (unit,) = [u for u in plan.units(made, ["before", *prompts]) if u.prompt == prompts[3] and u.seed == 2]
    assert (unit.prompt_index, unit.noise) == (4, 302)


def test_a_subset_of_vbench_counts_all_its_entries(tmp_path: Path):
    entries = [{"prompt_en": f"thing {i}", "dimension": [DIMENSIONS[i % 16]]} for i in range(64)]
    entries.insert(10, {"prompt_en": "thing 3", "dimension": ["overall_consistency"]})
    info = tmp_path / "VBench_full_info.json"
    info.write_text(json.dumps(entries))
    suite = VBench(info=str(info), subset=16, seeding=Seeding(prompt=100_000))
    whole = plan.offsets_of(VBench(info=str(info), seeding=Seeding(prompt=100_000)))
    some = plan.offsets_of(suite)
    assert len(some) == 16 and len(whole) == 64
    assert all(whole[p] == some[p] for p in some)
    assert whole["thing 3"] == 300_000  # of two entries the first
    assert whole["thing 20"] == 2_100_000


def test_a_file_of_prompts_counts_its_lines_that_are_prompts(tmp_path: Path):
    (tmp_path / "p.txt").write_text("a\n\nb\nc\n")
    suite = Prompts(prompts=str(tmp_path / "p.txt"), seeding=Seeding(prompt=10))
    assert plan.offsets_of(suite) == {"a": 0, "b": 10, "c": 20}


def test_the_leaderboards_preset_on_the_command_line():
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        words = ["+preset=vbench_leaderboard", "family=wan21_480p", "suite=vbench", "suite.subset=8"]
        plain = compose(hydra.compose("config", words))
    made = check({k: v for k, v in plain.items() if k not in RUN_KEYS})
    assert (made.family.shift, made.family.guidance_scale) == (3.0, 6.0)
    assert made.suite.seeding == Seeding(prompt=100_000)


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_run_records_and_uses_them(tmp_path: Path, engine: str):
    """Two prompts with one text, and noises of their own; the same video where the noise is the same."""
    with hydra.initialize_config_dir(str(yaml_files.FOLDER), version_base=None):
        words = ["method=[large,another_seed]", "family.steps=2", "suite.prompts=2", "suite.seeds=2"]
        words += ["metric=[]", f"engine={engine}", "engine.workers=1", f"results={tmp_path}", "name=trial"]
        plain, seeded = (
            compose(hydra.compose("config", [*words, *more]))
            for more in ([], ["suite.seeding={prompt: 2, seed: 1}"])
        )
    assert job(plain, []) == job(seeded, []) == 0
    runs = {r.name: read_run(r)[1] for r in (tmp_path / "trial").iterdir()}
    assert len(runs) == 2
    without, with_seeds = sorted(runs.values(), key=lambda cells: max(c.noise_seed for c in cells))
    got = {(c.method, c.prompt_index, c.seed): c.noise_seed for c in with_seeds}
    assert got == {
        (m, i, j): 2 * i + (j ^ 1 if m == "another_seed" else j)
        for m in ("large", "another_seed")
        for i in (0, 1)
        for j in (0, 1)
    }
    videos = {(c.method, c.prompt_index, c.seed): c.video for c in with_seeds}
    before = {(c.method, c.prompt_index, c.seed): c.video for c in without}
    assert all(videos[k] == before[k] for k in videos if k[1] == 0)
    assert all(videos[k] != before[k] for k in videos if k[1] == 1)
    shared = {c.key for c in with_seeds} & {c.key for c in without}
    assert {c.prompt_index for c in with_seeds if c.key in shared} == {0}
