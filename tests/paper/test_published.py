"""The paper's numbers as data: whole, and found in a run by what a method is."""

from __future__ import annotations

from srbench.paper import published

LARGE, SMALL = {"denoiser": {"model": "large"}}, {"denoiser": {"model": "small"}}


def test_every_number_has_its_method_setting_and_baseline() -> None:
    names = published.names()
    for value in published.values():
        assert (value.setting, value.method) in names
        assert value.setting in published.settings()
        if value.baseline:
            assert (value.setting, value.baseline) in names
    assert len(published.by_place()) == len(published.values())
    assert {v.table for v in published.values()} == {*"1234567", "figure 5"}
    assert all(float(v.text) == v.value for v in published.values())


def test_each_method_of_a_setting_has_a_path_of_its_own() -> None:
    for setting in published.settings():
        paths = [(m.path, m.steps) for m in published.methods() if m.setting == setting]
        assert len(set(paths)) == len(paths)
        assert published.unstated(setting)


def test_a_variant_is_not_the_published_method() -> None:
    pab = {
        "kind": "pab",
        "skip_range": 8,
        "timestep_range": [100.0, 970.0],
        "hooks": "self",
        "state": "shared",
    }
    srd = {"kind": "srdiffusion", "delta": 0.01, "min_steps": 5, "max_steps": None, "sign": "diminishing"}

    def of(accelerator):
        return published.signature([{"denoiser": {"model": "large", "accelerators": [accelerator]}}])

    assert of(pab) == "large+pab(8 100-970)"
    assert of(pab | {"state": "per_branch"}) == "large+pab(8 100-970) [per_branch]"
    assert published.signature([LARGE | {"until": srd}, SMALL]) == "large until srdiffusion(0.01) > small"
    limited = published.signature([LARGE | {"until": srd | {"max_steps": 30}}, SMALL])
    assert limited == "large until srdiffusion(0.01) [30] > small"
