"""The twins keep the rules that every family is held to."""

from __future__ import annotations

import pytest

from srbench import configs, conform


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("wan21_480p", {}),
        ("wan21_480p", {"sigma_grid": "diffusers"}),
        ("cogvideox", {}),
        ("cogvideox", {"sampler": "ddim", "dtype": "float32"}),
    ],
)
def test_a_twin_conforms(name, settings):
    settings = configs.read("family", name) | {"scale": "tiny", "device": "cpu"} | settings
    subject = conform.Subject("families", settings, conform.Lab(name))
    told: list[str] = []
    assert conform.conform(subject, told.append) == 0, "\n".join(told)
