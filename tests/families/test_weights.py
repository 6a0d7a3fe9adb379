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
        ([], "no weights in "),
        (["pytorch_model.bin"], "pytorch_model.bin, a pickle"),
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


# -- what is no model's folder, and indices that cannot be read


CONFIG = {"_class_name": "WanTransformer3DModel"}


def model(folder, **config):
    """A folder with a config.json, as a source."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def of(source):
    """What is wrong with a model's source."""
    found = Weights(source=str(source)).mistakes("method.x.weights", ["."])
    assert found, "taken"
    return str(found[0])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wan_fun.safetensors", "a single file"),
        ("wan.sft", "a single file"),
        ("wan.gguf", "a GGUF file"),
        ("wan.ckpt", "a pickle"),
        ("wan.bin", "a pickle"),
        ("wan", "a single file"),  # whatever its name
    ],
)
def test_a_single_file_is_no_models_folder(name, said, tmp_path):
    (tmp_path / name).write_bytes(b"anything")
    told = of(tmp_path / name)
    assert f"{name}, {said}" in told and "expected: a folder" in told
    if said == "a single file":
        assert "from_single_file" in told and "save_pretrained" in told
    if "." in name:  # one that is not there is none either
        assert said in of(tmp_path / "nowhere" / name)


def test_a_folder_of_gguf_files_is_no_models_folder(tmp_path):
    (model(tmp_path / "quantized", **CONFIG) / "wan-Q4_K_M.gguf").write_bytes(b"GGUF")
    assert "wan-Q4_K_M.gguf, a GGUF file" in of(tmp_path / "quantized")


@pytest.mark.parametrize("method", ["bitsandbytes", "torchao", "gptq", "fp8"])
def test_a_quantized_model_is_refused_by_its_config(method, tmp_path):
    folder = model(tmp_path / "m", **CONFIG, quantization_config={"quant_method": method})
    save_file({"w": torch.zeros(2)}, folder / "diffusion_pytorch_model.safetensors")
    told = of(folder)
    assert f"quantization_config ({method})" in told and "does not run quantized checkpoints" in told


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float8_e4m3fn, torch.float8_e5m2])
def test_a_quantized_model_is_refused_by_its_tensors(dtype, tmp_path):
    folder = model(tmp_path / "m", **CONFIG)
    save_file({"w": torch.zeros(2).to(dtype)}, folder / "diffusion_pytorch_model.safetensors")
    assert "does not run quantized checkpoints" in of(folder)


SHARD = "diffusion_pytorch_model-00001-of-00002.safetensors"


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("", "torn or no JSON"),
        ('{"weight_map": {"w"', "torn or no JSON"),
        ("[]", "holds no settings"),
        ("null", "holds no settings"),
        ('"weight_map"', "holds no settings"),
        ("[" * 100_000, "torn or no JSON"),
        ("{}", "without a weight_map"),
        ('{"weight_map": null}', "without a weight_map"),
        ('{"weight_map": []}', "without a weight_map"),
        ('{"weight_map": {}}', "without a weight_map"),
        ('{"weight_map": {"w": 1}}', "without a weight_map"),
        ('\ufeff{"weight_map": {"w": "SHARD"}}', "byte-order mark"),
        ('{"weight_map": {"w": "../SHARD"}}', "with the file '../"),
        ('{"weight_map": {"w": "/etc/passwd"}}', "with the file '/etc/passwd'"),
        ('{"weight_map": {"w": "sub/SHARD"}}', "with the file 'sub/"),
        ('{"weight_map": {"w": ".."}}', "with the file '..'"),
        ('{"weight_map": {"w": "model.bin"}}', "with the file 'model.bin'"),
        ('{"weight_map": {"w": "SHARD", "v": "gone.safetensors"}}', "1 of 2 shards of m are missing"),
        ('{"weight_map": {"w": "SHARD", "v": "SHARD"}}', "differ, as in v"),
        ('{"weight_map": {"v": "SHARD"}}', "differ, as in"),
    ],
)
@pytest.mark.parametrize("kind", ["diffusion_pytorch_model", "model"])
def test_an_index_that_cannot_be_followed_is_a_mistake(kind, index, said, tmp_path):
    folder = model(tmp_path / "m", **CONFIG)
    save_file({"w": torch.zeros(2)}, folder / SHARD)
    (folder / f"{kind}.safetensors.index.json").write_text(index.replace("SHARD", SHARD), "utf-8")
    told = of(folder)
    assert said in told and told.startswith("given:    method.x.weights.source: ")


def test_an_index_that_can_be_followed_is_none(tmp_path):
    folder = model(tmp_path / "m")
    save_file({"w": torch.zeros(2)}, folder / SHARD)
    index = {"weight_map": {"w": SHARD}, "metadata": {}}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert Weights(source=str(folder)).mistakes("method.x.weights", ["."]) == []
