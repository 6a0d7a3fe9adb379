"""What every key of a LoRA's file is for, by its header alone; no torch.

Each key is a part of an update of one layer: a pair A and B, the alpha that scales the pair, a
bias of B, or a difference that is added to a parameter as it is.  A file with any other key, or with a
key for no layer of the model, is refused: a part that is left out would change the video silently.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from srbench.families import _checkpoint
from srbench.families._checkpoint import Fault, Shapes

if TYPE_CHECKING:
    from srbench.families._settings import FamilySettings

Kind = Literal["A", "B", "alpha", "B bias", "weight", "bias"]
# how trainers end their keys: diffusers and PEFT, kohya, ComfyUI
ENDINGS: Mapping[str, Kind] = {
    ".lora_A.weight": "A",
    ".lora_B.weight": "B",
    ".lora_A.default.weight": "A",
    ".lora_B.default.weight": "B",
    ".lora_down.weight": "A",
    ".lora_up.weight": "B",
    ".lora_B.bias": "B bias",
    ".alpha": "alpha",
    ".diff": "weight",
    ".diff_b": "bias",
}
METADATA = "lora_adapter_metadata"  # where diffusers writes the LoRA's configuration
_ANOTHER_KIND = re.compile(
    r"dora_scale|lora_magnitude|hada_|lokr_|lora_mid|oft_|w_norm|b_norm|lora_embedding"
)
_TAKE_THIS = "take a LoRA of this very model: that of another size does not fit"


@dataclass(frozen=True)
class Part:
    """One tensor of a LoRA.  target: the layer of A, B, alpha and B's bias; else the parameter."""

    kind: Kind
    target: str


def parts(keys: Iterable[str], known: Shapes, family: FamilySettings) -> dict[str, Part]:
    """What each key is for.  known: the model's tensors.  Raises Fault for a key that is for nothing here."""
    layers = {re.sub(r"\.(weight|bias)$", "", name) for name in known}
    names = {alias: layer for layer in layers for alias in family.lora_names(layer)}
    found = {}
    for key in keys:
        ending = _ending(key, family)
        layer = names.get(key.removesuffix(ending))
        if layer is None:
            raise Fault(key, "a layer of the model", "take a LoRA of this architecture, text to video")
        kind = ENDINGS[ending]
        parameter = layer if kind == "weight" and layer in known else f"{layer}.{kind}"
        found[key] = Part(kind, parameter if kind in ("weight", "bias") else layer)
    twice = [p for p, n in Counter(found.values()).items() if n > 1]
    if twice:
        raise Fault(f"{twice[0].kind} of {twice[0].target} twice", "one of each", "leave one layout out")
    return found


def _ending(key: str, family: FamilySettings) -> str:
    """How a key ends.  Raises Fault for one that no LoRA of this family has."""
    if found := _ANOTHER_KIND.search(key):
        got, expected = f"{key}, of another kind of adapter ({found[0]})", "a plain LoRA: pairs of A and B"
        raise Fault(got, expected, "fuse it with the tool that trained it, and give the checkpoint")
    ending = next((e for e in ENDINGS if key.endswith(e)), None)
    if ending is None or not key.startswith(family.LORA_LAYOUTS):
        layouts = " or ".join(family.LORA_LAYOUTS)
        expected = f"a LoRA of the transformer alone, every key beginning with {layouts}"
        raise Fault(key, f"{expected} and ending as {', '.join(list(ENDINGS)[:2])}", _SAVE)
    return ending


_SAVE = "save it by diffusers' save_lora_weights"


def check(file: Path, known: Shapes, family: FamilySettings) -> None:
    """Raise Fault where a part of a file would not be applied.

    known: the model's tensors; empty where they are not here, and then only the keys' forms are checked.
    """
    shapes = _checkpoint.header(file)
    _checkpoint.refuse_quantized(file)
    if not any(key.endswith(tuple(ENDINGS)) for key in shapes):
        raise Fault(f"{file} without one lora_A", "a LoRA's file", "name another file")
    for key in shapes:
        _ending(key, family)
    if not known:
        return
    told = parts(shapes, known, family)
    for key, part in told.items():
        _check_shape(key, part, shapes[key], known)
    _check_pairs(told, shapes)
    about = metadata(file)
    if about is not None:
        _check_metadata(about, told, shapes)


def _check_shape(key: str, part: Part, shape: tuple[int, ...], known: Shapes) -> None:
    """Raise Fault where A (r, in), B (out, r) or a difference does not fit its weight (out, in)."""
    got = f"{key} of shape {list(shape)}"
    if part.kind == "alpha":
        if shape not in ((), (1,)):
            raise Fault(got, "one number", _SAVE)
        return
    name = part.target if part.kind in ("weight", "bias") else f"{part.target}.weight"
    name = f"{part.target}.bias" if part.kind == "B bias" else name
    there = known.get(name)
    if there is None:
        raise Fault(got, f"a parameter of the model, which has no {name}", _TAKE_THIS)
    if part.kind in ("weight", "bias", "B bias"):
        if shape != there:
            raise Fault(got, f"{list(there)}, as {name} is", _TAKE_THIS)
        return
    if len(there) != 2:
        raise Fault(
            got, f"a part for a linear layer: {name} is {list(there)}", "leave that layer out of the LoRA"
        )
    side = 1 if part.kind == "A" else 0
    if len(shape) != 2 or shape[side] != there[side]:
        raise Fault(got, f"one for {name} of {list(there)}", _TAKE_THIS)


def _check_pairs(told: Mapping[str, Part], shapes: Shapes) -> None:
    """Raise Fault for half a pair, two ranks in one, and an alpha without a pair."""
    ranks: dict[str, dict[str, int]] = {}
    for key, part in told.items():
        if part.kind in ("A", "B"):
            ranks.setdefault(part.target, {})[part.kind] = shapes[key][0 if part.kind == "A" else 1]
    for key, part in told.items():
        if part.kind in ("weight", "bias"):
            continue
        pair = ranks.get(part.target, {})
        if set(pair) != {"A", "B"}:
            raise Fault(f"{key} without its pair", f"A and B of {part.target}", _SAVE)
        if pair["A"] != pair["B"]:
            raise Fault(f"{key} of rank {pair['A']} and {pair['B']}", "one rank in A and B", _SAVE)


def metadata(file: Path) -> Mapping[str, Any] | None:
    """The configuration that diffusers wrote into a file; None where it has none for the transformer.

    Raises Fault where it is damaged.
    """
    text = _checkpoint.metadata(file).get(METADATA)
    if text is None:
        return None
    try:
        plain = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        plain = None
    if not isinstance(plain, dict):
        raise Fault(f"{METADATA} that is no JSON object", "the LoRA's configuration", _SAVE)
    own = {k.removeprefix("transformer."): v for k, v in plain.items() if k.startswith("transformer.")}
    return own or None


def _check_metadata(about: Mapping[str, Any], told: Mapping[str, Part], shapes: Shapes) -> None:
    """Raise Fault where the configuration contradicts the tensors, so that a scale would be a guess."""
    if any(part.kind == "alpha" for part in told.values()):
        raise Fault(f"alpha both in tensors and in {METADATA}", "one of them", _SAVE)
    if about.get("use_dora") or about.get("peft_type", "LORA") != "LORA":
        raise Fault(f"{METADATA} of another kind of adapter", "a plain LoRA", _SAVE)
    pattern = about.get("rank_pattern") or {}
    ranks = [about.get("r"), *(pattern.values() if isinstance(pattern, dict) else [pattern])]
    alpha = about.get("lora_alpha")
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool):
        raise Fault(f"{METADATA} with lora_alpha = {alpha!r}", "a number", _SAVE)
    for key, part in told.items():
        if part.kind == "A" and shapes[key][0] not in ranks:
            raise Fault(f"{key} of rank {shapes[key][0]}", f"{ranks[0]!r}, as {METADATA} says", _SAVE)
