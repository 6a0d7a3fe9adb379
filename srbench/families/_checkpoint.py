"""Whether a folder holds weights that will load, known from headers alone; no torch.

A safetensors file begins with the length of its header (8 bytes, little-endian) and the
header, JSON that gives every tensor's dtype, shape and place; so a file cut short and a
model of another size are found without reading a single weight.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from srbench.errors import UserError

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FILES = (".safetensors", *PICKLES)
_MAX_HEADER = 100_000_000  # bytes; the format's own limit
_FETCH = "fetch or convert the weights again, as safetensors in diffusers layout"


class Fault(Exception):
    """What is wrong with a file, and what was expected of it."""


def mistakes(folder: Path, where: str) -> list[UserError]:
    """What keeps the model in a folder (config.json and safetensors) from loading.

    where: the setting that named it, for the message.
    """
    try:
        found = tensors(folder)
        for name, shape in expected(read_json(folder / "config.json")):
            if name not in found:
                raise Fault(
                    f"{folder} has no tensor {name}", f"one of {list(shape)}, as its config.json says"
                )
            if found[name] != shape:
                raise Fault(
                    f"{folder}: {name} of shape {list(found[name])}",
                    f"{list(shape)}, as its config.json says",
                )
    except Fault as fault:
        got, wanted = fault.args
        return [UserError(f"{where}: {got}", wanted, _FETCH)]
    return []


def tensors(folder: Path) -> Shapes:
    """The shape of every tensor of a checkpoint, one file or shards with an index."""
    if not folder.is_dir():
        raise Fault(f"no folder {folder}", "a folder in diffusers layout with the weights in it")
    found: Shapes = {}
    for file in _files(folder):
        found |= header(file)
    return found


def _files(folder: Path) -> list[Path]:
    for stem in ("diffusion_pytorch_model", "model"):
        index = folder / f"{stem}.safetensors.index.json"
        if index.exists():
            shards = read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
                raise Fault(f"{index} without a weight_map", "which file each tensor is in")
            return [folder / name for name in dict.fromkeys(shards.values())]
        if (file := folder / f"{stem}.safetensors").exists():
            return [file]
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
    if pickles:
        raise Fault(
            f"{folder / pickles[0]}, a pickle", "safetensors: a pickle can run any code, and is never opened"
        )
    raise Fault(f"no weights in {folder}", "model.safetensors or diffusion_pytorch_model.safetensors")


def header(file: Path) -> Shapes:
    """The shapes in a safetensors file, whose length must be what its header says."""
    try:
        size = file.stat().st_size
        with open(file, "rb") as opened:
            first = opened.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
            plain = json.loads(opened.read(length)) if 8 + length <= size and length <= _MAX_HEADER else None
    except OSError as error:
        raise Fault(f"{file} ({error.strerror})", "a safetensors file") from None
    except ValueError:
        plain = None
    if not isinstance(plain, dict):
        raise Fault(f"{file}, torn or no safetensors file", "a whole file")
    plain.pop("__metadata__", None)
    try:
        shapes = {name: tuple(int(n) for n in t["shape"]) for name, t in plain.items()}
        end = max((int(t["data_offsets"][1]) for t in plain.values()), default=0)
    except (KeyError, TypeError, ValueError, IndexError):
        raise Fault(f"{file}, whose header is not of a safetensors file", "a whole file") from None
    if 8 + length + end != size:
        raise Fault(f"{file} of {size:,} bytes", f"{8 + length + end:,} bytes, as its header says")
    return shapes


def read_json(file: Path) -> Mapping[str, Any]:
    try:
        plain = json.loads(file.read_bytes())
    except OSError as error:
        raise Fault(f"{file} ({error.strerror})", "the model's settings") from None
    except ValueError:
        raise Fault(f"{file}, torn or no JSON", "the model's settings") from None
    if not isinstance(plain, dict):
        raise Fault(f"{file} holds no settings", "keys with values")
    return plain


# -- the shapes that tell one size of a model from another


def expected(config: Mapping[str, Any]) -> Iterator[tuple[str, Shape]]:
    """Tensors that a model of this config must have; none for a class that is not known here."""
    names = [config.get("_class_name"), *(config.get("architectures") or [])]
    try:
        for name in names:
            yield from _EXPECTED[name](config).items() if name in _EXPECTED else ()
    except (KeyError, TypeError, ValueError) as error:
        raise Fault(
            f"the config.json of {names[0] or names[1]} ({error!r})", "the model's settings"
        ) from None


def _transformer(c: Mapping[str, Any]) -> Shapes:
    width, patch = c["num_attention_heads"] * c["attention_head_dim"], tuple(c["patch_size"])
    shapes = {
        "patch_embedding.weight": (width, c["in_channels"], *patch),
        "proj_out.weight": (c["out_channels"] * math.prod(patch), width),
        "condition_embedder.text_embedder.linear_1.weight": (width, c["text_dim"]),
        "condition_embedder.time_embedder.linear_1.weight": (width, c["freq_dim"]),
    }
    for i in range(c["num_layers"]):
        shapes |= {f"blocks.{i}.attn{a}.to_{x}.weight": (width, width) for a in (1, 2) for x in "qkv"}
        shapes[f"blocks.{i}.ffn.net.0.proj.weight"] = (c["ffn_dim"], width)
        shapes[f"blocks.{i}.ffn.net.2.weight"] = (width, c["ffn_dim"])
    return shapes


def _text_encoder(c: Mapping[str, Any]) -> Shapes:
    width, inner = c["d_model"], c["num_heads"] * c["d_kv"]
    shapes = {"shared.weight": (c["vocab_size"], width), "encoder.final_layer_norm.weight": (width,)}
    for i in range(c["num_layers"]):
        block = f"encoder.block.{i}.layer"
        shapes[f"{block}.0.SelfAttention.q.weight"] = (inner, width)
        shapes[f"{block}.1.DenseReluDense.wo.weight"] = (width, c["d_ff"])
    return shapes


def _vae(c: Mapping[str, Any]) -> Shapes:
    z = c["z_dim"]
    return {
        "quant_conv.weight": (2 * z, 2 * z, 1, 1, 1),
        "post_quant_conv.weight": (z, z, 1, 1, 1),
        "encoder.conv_in.weight": (c["base_dim"], c.get("in_channels") or 3, 3, 3, 3),
    }


_EXPECTED = {
    "WanTransformer3DModel": _transformer,
    "UMT5EncoderModel": _text_encoder,
    "AutoencoderKLWan": _vae,
}
