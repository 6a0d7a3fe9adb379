"""The shipped family: a folder that stock diffusers loads with nothing of ours."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from safetensors import safe_open

import srbench.shapes

MODEL = Path(srbench.shapes.__file__).parent / "model"

STOCK = """
import sys, torch
from diffusers import WanPipeline
from transformers import AutoTokenizer
assert len(AutoTokenizer.from_pretrained(sys.argv[1], subfolder="tokenizer")("a red circle").input_ids) == 4
pipeline = WanPipeline.from_pretrained(sys.argv[1])
video = pipeline("a red circle moving left on a black background", height=64, width=64, num_frames=17,
                 num_inference_steps=2, max_sequence_length=32, guidance_scale=4.0, output_type="np",
                 generator=torch.Generator().manual_seed(0)).frames[0]
assert video.shape == (17, 64, 64, 3), video.shape
assert not [m for m in sys.modules if m.startswith("srbench")]
print(type(pipeline.transformer).__name__, type(pipeline.transformer_2).__name__, type(pipeline.vae).__name__)
"""


def test_stock_wan_pipeline_loads_and_runs_it(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", STOCK, str(MODEL)], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert told.returncode == 0, told.stderr[-2000:]
    assert told.stdout.split() == ["WanTransformer3DModel", "WanTransformer3DModel", "AutoencoderKLWan"]


def test_it_is_small_and_safetensors_only() -> None:
    files = [p for p in MODEL.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 40e6
    assert {p.suffix for p in files} <= {".json", ".safetensors", ".md"}


def test_large_and_small_share_one_folder_and_no_boundary_is_set() -> None:
    index = json.loads((MODEL / "model_index.json").read_text())
    assert index["boundary_ratio"] is None
    large, small = (parameters(MODEL / n) for n in ("transformer", "transformer_2"))
    assert large > 8 * small > 0


def test_the_text_encoder_is_stored_in_float32() -> None:
    """Transformers would keep one stored in half precision at that precision."""
    with safe_open(MODEL / "text_encoder" / "model.safetensors", "pt") as file:
        assert {str(file.get_slice(k).get_dtype()) for k in file.keys()} == {"F32"}


def parameters(folder: Path) -> int:
    (path,) = folder.glob("*.safetensors")
    with safe_open(path, "pt") as file:
        total = 0
        for key in file.keys():
            count = 1
            for n in file.get_slice(key).get_shape():
                count *= n
            total += count
    return total
