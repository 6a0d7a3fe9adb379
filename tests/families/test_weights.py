"""Where weights lie: pinned, whole, on this machine, or told what is missing."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from srbench.families._weights import Weights

COMMIT = "0123456789" * 4


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def snapshot(hub, name="models--org--model"):
    folder = hub / name / "snapshots" / COMMIT / "transformer"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def weights(**settings):
    return Weights(source="org/model", revision=COMMIT, size=57.2e9, **settings)


@pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:12]])
def test_a_repository_without_a_commit_is_refused(hub, revision):
    (mistake,) = Weights(source="org/model", revision=revision).mistakes("family.large", ["transformer"])
    assert mistake.expected.startswith("a commit of 40 hexadecimal digits")
    assert mistake.do == "pin a commit: set family.large.revision"


def test_the_commit_that_this_machine_has_is_offered(hub):
    refs = hub / "models--org--model" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    (mistake,) = Weights(source="org/model", revision="main").mistakes("family.large", ["transformer"])
    assert f"family.large.revision={COMMIT} is what this machine has" in mistake.do


def test_what_is_not_downloaded_is_told_with_size_and_command(hub):
    (mistake,) = weights().mistakes("family.large", ["transformer", "vae/config.json"])
    assert "family.large: org/model is not on this machine" in mistake.got
    assert "57.2 GB" in mistake.expected and str(hub) in mistake.expected
    include = "--include 'transformer/*' --include 'vae/config.json'"
    command = f"hf download org/model --revision {COMMIT} {include};"
    assert mistake.do.startswith(command)
    assert "family.scale=tiny" in mistake.do


def test_a_whole_download_is_found_and_is_a_folder(hub):
    folder = snapshot(hub)
    save_file({"w": torch.zeros(2)}, folder / "model.safetensors")
    assert weights().mistakes("family.large", ["transformer"]) == []
    assert weights().path == str(folder.parent)
    assert weights().identity(["transformer"]) == {"transformer": ["org/model", COMMIT]}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ([], "no safetensors in transformer"),
        (["pytorch_model.bin"], "no safetensors in transformer"),
        (["a.safetensors"], "1 of 2 shards of transformer are missing"),
    ],
)
def test_a_half_download_is_told(hub, files, told):
    folder = snapshot(hub)
    for name in files:
        (folder / name).write_bytes(b"")
    if "a.safetensors" in files:
        index = {"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (mistake,) = weights().mistakes("family.large", ["transformer"])
    assert told in mistake.got


def test_a_missing_local_folder_is_told(tmp_path):
    (mistake,) = Weights(source=str(tmp_path)).mistakes("family.large", ["transformer"])
    assert "no transformer in it" in mistake.got
    assert "hub repository's name with its commit" in mistake.do


def test_local_files_are_named_by_their_bytes_and_by_those_asked_for_alone(tmp_path):
    for part in ("transformer", "transformer_2"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(part)
    before = Weights(source=str(tmp_path)).identity(["transformer"])
    (tmp_path / "teacache.json").write_text("{}")
    (tmp_path / "transformer_2" / "config.json").write_text("changed")
    assert Weights(source=str(tmp_path)).identity(["transformer"]) == before
    assert Weights(source=str(tmp_path)).identity(["transformer_2"]) != before
