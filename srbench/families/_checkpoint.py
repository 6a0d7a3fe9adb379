"""Whether a folder holds weights that will load, known from headers alone; no torch.

A safetensors file begins with the length of its header (8 bytes, little-endian) and the
header, JSON that gives every tensor's dtype, shape and place; so a file cut short and a
model of another size are found without reading a single weight.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from srbench.errors import UserError

Shape = tuple[int, ...]
Shapes = dict[str, Shape]

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FILES = (".safetensors", ".sft", ".gguf", *PICKLES)
_MAX_HEADER = 100_000_000  # bytes; the format's own limit
_FETCH = "fetch or convert the weights again, as safetensors in diffusers layout"
_QUANTIZED = ("U8", "I8", "F8", "F4", "F6")
_PLAIN = "weights in float32, bfloat16 or float16: srbench does not run quantized checkpoints"
_CONVERT = (
    "load it with diffusers' from_single_file in its class, write it with save_pretrained, "
    "and give that folder"
)


class Fault(Exception):
    """What is wrong with a file, what was expected of it, and what to do where that is special."""


def user_error(fault: Fault, where: str, do: str = _FETCH) -> UserError:
    """The fault of a file that the setting `where` names."""
    got, expected, *own = fault.args
    return UserError(f"{where}: {got}", expected, *(own or [do]))


def refuse_single_file(place: Path) -> None:
    """Raise Fault where a file is given in place of a model's folder."""
    if place.suffix in PICKLES:
        raise Fault(f"{place}, a pickle", "a folder with safetensors: a pickle can run any code", _CONVERT)
    if place.suffix == ".gguf":
        raise Fault(f"{place}, a GGUF file", f"a folder in diffusers layout with {_PLAIN}", _FETCH)
    if place.suffix in FILES or place.is_file():
        raise Fault(f"{place}, a single file", "a folder in diffusers layout, with a config.json", _CONVERT)


def mistakes(folder: Path, where: str) -> list[UserError]:
    """What keeps the model in a folder (config.json and safetensors) from loading.

    where: the setting that named it, for the message.
    """
    try:
        config = read_json(folder / "config.json")
        if config.get("quantization_config") is not None:
            method = config["quantization_config"]
            method = method.get("quant_method") if isinstance(method, dict) else method
            raise Fault(f"{folder / 'config.json'} with quantization_config ({method})", _PLAIN, _FETCH)
        for file in files(folder):
            refuse_quantized(file)
        found = tensors(folder)
        for name, shape in expected(config):
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
        return [user_error(fault, where)]
    return []


def tensors(folder: Path) -> Shapes:
    """The shape of every tensor of a checkpoint, one file or shards with an index."""
    found: Shapes = {}
    for file in files(folder):
        found |= header(file)
    return found


def files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint.  Raises Fault where there are none, or one is missing."""
    if not folder.is_dir():
        raise Fault(f"no folder {folder}", "a folder in diffusers layout with the weights in it")
    for stem in ("diffusion_pytorch_model", "model"):
        index = folder / f"{stem}.safetensors.index.json"
        if index.exists():
            return _shards(index)
        if (file := folder / f"{stem}.safetensors").exists():
            return [file]
    others = sorted(p.name for p in folder.iterdir() if p.suffix in (*PICKLES, ".gguf"))
    if others:
        refuse_single_file(folder / others[0])
    raise Fault(f"no weights in {folder}", "model.safetensors or diffusion_pytorch_model.safetensors")


def _shards(index: Path) -> list[Path]:
    """The files that an index names.  Raises Fault where it names other tensors than they hold."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(s, str) for s in places.values()):
        raise Fault(f"{index} without a weight_map", "which file each tensor is in")
    names = sorted(set(places.values()))
    for name in names:
        if not _SHARD.fullmatch(name):
            raise Fault(f"{index} with the file {name!r}", "the name of a safetensors file in that folder")
    shards = [index.parent / name for name in names]
    if missing := [s.name for s in shards if not s.is_file()]:
        got = f"{len(missing)} of {len(shards)} shards of {index.parent.name} are missing"
        raise Fault(f"{got}, as {missing[0]}", f"the files that {index.name} names")
    for shard in shards:
        there, told = set(header(shard)), {t for t, s in places.items() if s == shard.name}
        if other := sorted(there ^ told):
            raise Fault(f"{index} and {shard.name} differ, as in {other[0]}", "the same tensors in both")
    return shards


_SHARD = re.compile(r"[^/\\\0]+\.safetensors")


def header(file: Path) -> Shapes:
    """The shapes in a safetensors file, whose length must be what its header says."""
    return {name: tuple(int(n) for n in t["shape"]) for name, t in _entries(file).items()}


def refuse_quantized(file: Path) -> None:
    """Raise Fault where a tensor is of a format that only quantized weights have."""
    for name, entry in _entries(file).items():
        if str(entry.get("dtype")).startswith(_QUANTIZED):
            raise Fault(f"{file}: {name} in {entry['dtype']}", _PLAIN, _FETCH)


def metadata(file: Path) -> Mapping[str, Any]:
    """What a safetensors file says of itself.  Raises Fault where it is no such file."""
    found = _plain(file)[0].get("__metadata__") or {}
    if not isinstance(found, dict):
        raise Fault(f"{file}, whose header is not of a safetensors file", "a whole file")
    return found


def _entries(file: Path) -> dict[str, dict[str, Any]]:
    """A file's tensors as its header gives them, checked against the file's length."""
    plain, begin, size = _plain(file)
    entries = {name: t for name, t in plain.items() if name != "__metadata__"}
    try:
        end = max((int(t["data_offsets"][1]) for t in entries.values()), default=0)
        _ = [tuple(int(n) for n in t["shape"]) for t in entries.values()]
    except (KeyError, TypeError, ValueError, IndexError):
        raise Fault(f"{file}, whose header is not of a safetensors file", "a whole file") from None
    if begin + end != size:
        raise Fault(f"{file} of {size:,} bytes", f"{begin + end:,} bytes, as its header says")
    return entries


def _plain(file: Path) -> tuple[dict[str, Any], int, int]:
    """A file's header, where its data begin, and the file's length."""
    try:
        size = file.stat().st_size
        with open(file, "rb") as opened:
            first = opened.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else size
            plain = json.loads(opened.read(length)) if 8 + length <= size and length <= _MAX_HEADER else None
    except OSError as error:
        raise Fault(f"{file} ({error.strerror})", "a safetensors file") from None
    except (ValueError, RecursionError):
        plain = None
    if not isinstance(plain, dict):
        raise Fault(f"{file}, torn or no safetensors file", "a whole file")
    return plain, 8 + length, size


def read_json(file: Path) -> Mapping[str, Any]:
    """A configuration or an index.  Raises Fault where it is missing, damaged, or no JSON object."""
    try:
        raw = file.read_bytes()
        plain = json.loads(raw.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError):
            raise Fault(f"{file} ({error.strerror})", "a JSON file of a checkpoint") from None
        if raw.startswith(codecs.BOM_UTF8):
            raise Fault(
                f"{file} begins with a byte-order mark", "UTF-8 without one", "save it again"
            ) from None
        raise Fault(f"{file}, torn or no JSON", "a whole JSON file of a checkpoint") from None
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
