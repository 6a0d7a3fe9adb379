"""The twins keep the rules that every family is held to."""

from __future__ import annotations

import pytest

from srbench.cli import check
from srbench.config import yaml_files


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
    settings = yaml_files.read("family", name) | {"scale": "tiny", "device": "cpu"} | settings
    subject = check.Subject("families", settings, check.Lab(name))
    told: list[str] = []
    assert check.conform(subject, told.append) == 0, "\n".join(told)
