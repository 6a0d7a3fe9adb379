"""Weights of a method's own: where they lie, whether they fit their family, what names them; no torch.

A step-distilled checkpoint, a fine-tune or a LoRA takes the place of the family's model of the
same role.  All that can be known from `config.json` and the headers of safetensors is asked before
anything loads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srbench.config.custom_weights import LoRA, OwnWeights, peft
from srbench.config.experiment import Denoiser
from srbench.errors import UserError
from srbench.families import _checkpoint, _lora
from srbench.families._weights import Weights

if TYPE_CHECKING:
    from srbench.families._settings import FamilySettings

# What must be as in the family's own config.json: else noise, text or video would not fit.
FITS = ("in_channels", "out_channels", "patch_size", "patch_size_t", "text_dim", "text_embed_dim")


def checkpoint(own: OwnWeights | None) -> Weights | None:
    """The checkpoint that a denoiser has in the place of its family's; None where it has that."""
    if own is None or own.source is None:
        return None
    return Weights(source=own.source, revision=own.revision, subfolder=own.subfolder, size=own.size)


def folder(family: FamilySettings, denoiser: Denoiser) -> Path:
    """Where a denoiser's config.json and weights are read."""
    own = checkpoint(denoiser.weights)
    if own is not None:
        return own.folder / (own.subfolder or "")
    weights = family.weights(denoiser.model)
    return weights.folder / (weights.subfolder or "transformer")


def lora_file(lora: LoRA) -> Path:
    """The file that a LoRA means on this machine, whether it is there or not."""
    place = Weights(source=lora.source, revision=lora.revision).folder
    return place if place.suffix in _checkpoint.FILES else place / lora.weight_name


def named(own: OwnWeights) -> OwnWeights:
    """The weights with what names their bytes written in.

    Of a hub repository its commit; of local files their hash; of what is not there its place, so
    that a plan of it can be told.
    """
    from srbench.store.objects import file_hash

    weights, lora = checkpoint(own), own.lora
    content = None
    if weights is not None:
        content = _named(weights, own.subfolder or ".", weights.folder / (own.subfolder or ""))
    if lora is not None:
        file = lora_file(lora)
        place = Weights(source=lora.source, revision=lora.revision)
        told = f"{lora.source}@{lora.revision}/{lora.weight_name}"
        if not place.is_hub:
            told = file_hash(file) if file.is_file() else f"missing {file}"
        lora = replace(lora, content=told, package=peft())
    return replace(own, content=content, lora=lora)


def unnamed(own: OwnWeights) -> OwnWeights:
    """As a YAML gives them, before `named`."""
    lora = None if own.lora is None else replace(own.lora, content=None, package=None)
    return replace(own, content=None, lora=lora)


def _named(weights: Weights, inside: str, folder: Path) -> str:
    if not weights.is_hub and not weights.is_tiny and not folder.is_dir():
        return f"missing {folder}"
    (told,) = weights.identity([inside]).values()
    return told if isinstance(told, str) else json.dumps([told, inside])


def mistakes(family: FamilySettings, denoiser: Denoiser, where: str) -> list[UserError]:
    """What keeps a denoiser's own weights from being loaded, told before anything is.

    where: the dotted place of the denoiser.
    """
    own = denoiser.weights
    if own is None:
        return []
    where, weights = f"{where}.weights", checkpoint(own)
    if weights is not None:
        found = weights.mistakes(where, [own.subfolder or "."], "or leave the method out")
        if found:
            return _told(found, weights, where)
        at = weights.folder / (own.subfolder or "")
        if (unfit := _unfit(family, denoiser, at, where)) is not None:
            return [unfit]
    return [] if own.lora is None else _of_lora(family, denoiser, own.lora, f"{where}.lora")


def _told(found: list[UserError], weights: Weights, where: str) -> list[UserError]:
    """With what is likely to be meant: a pipeline's folder, a model's, or a folder that is not there."""
    if weights.subfolder is None and (weights.folder / "transformer" / "config.json").exists():
        got = f"{where}.source = {weights.source}, which has no config.json"
        return [UserError(got, "a model's folder", f"set {where}.subfolder=transformer")]
    if weights.subfolder is not None and weights.is_local and (weights.folder / "config.json").exists():
        got = f"{where}.subfolder = {weights.subfolder}, but {weights.source} has a config.json itself"
        return [UserError(got, "the folder inside it that the model lies in", f"set {where}.subfolder=null")]
    if weights.is_hub and not weights.is_pinned:
        first = found[0]
        return [UserError(first.got, f"{first.expected}; or a folder that is there", first.do)]
    return found


def _unfit(family: FamilySettings, denoiser: Denoiser, own: Path, where: str) -> UserError | None:
    """Why a checkpoint cannot stand in the place of its family's, as their headers show."""
    if not (own / "config.json").exists():
        return None  # a twin, made when it is first opened and asked again then
    config, known = _config(own), family.TRANSFORMER
    if known and config.get("_class_name") != known:
        return UserError(
            f"{where}: {config.get('_class_name') or 'a model of no class'} in {own}",
            f"{known}, as the family's {denoiser.model} model is",
            f"take a checkpoint of {family.name}'s architecture",
        )
    theirs = folder(family, replace(denoiser, weights=None))
    if not (theirs / "config.json").exists():
        return None  # told as the family's own mistake
    ours = _config(theirs)
    for key in FITS:
        a, b = _plain(config.get(key)), _plain(ours.get(key))
        if a is not None and b is not None and a != b:
            return UserError(
                f"{where}: {key} {a} in {own / 'config.json'}",
                f"{b}, as the family's {denoiser.model} model has it",
                f"take a checkpoint of {family.name}, text to video",
            )
    mine, known_ = _parts(own), _parts(theirs)
    if known_ and (other := sorted(mine ^ known_)):
        has = "has" if other[0] in mine else "lacks"
        return UserError(
            f"{where}: {own} {has} {other[0]}" + f" and {len(other) - 1} more" * (len(other) > 1),
            f"the tensors of the family's {denoiser.model} model, as many layers as it may have",
            "a model with parts of its own needs a family of its own",
        )
    return None


def _config(folder: Path) -> Mapping[str, Any]:
    """A model's settings; none where they are damaged, which is told where that folder is asked for."""
    try:
        return _checkpoint.read_json(folder / "config.json")
    except _checkpoint.Fault:
        return {}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _tensors(folder: Path) -> _checkpoint.Shapes:
    """A checkpoint's shapes; none where it is missing or torn, which is told where it is asked for."""
    try:
        return _checkpoint.tensors(folder)
    except _checkpoint.Fault:
        return {}


def _parts(folder: Path) -> set[str]:
    """The names of a checkpoint's tensors, whatever layer they are in."""
    return {re.sub(r"\.\d+\.", ".N.", name) for name in _tensors(folder)}


def _of_lora(family: FamilySettings, denoiser: Denoiser, lora: LoRA, where: str) -> list[UserError]:
    place, file = Weights(source=lora.source, revision=lora.revision, size=lora.size), lora_file(lora)
    if file.suffix != ".safetensors":
        got = f"{where}: {file.name}, which is no safetensors file"
        return [UserError(got, "safetensors: a pickle can run any code, and is never opened", "convert it")]
    if place.is_hub and not (place.is_pinned and file.exists()):
        return place.lacking(
            where, [lora.weight_name], f"no {lora.weight_name} in it", "or leave the method out"
        )
    try:
        _lora.check(file, _tensors(folder(family, denoiser)), family)
    except _checkpoint.Fault as fault:
        got, expected, *do = fault.args
        there = got if str(file) in got else f"{got} in {file}"
        given = [
            UserError(f"{where}: {there}", expected, *(do or [f"set {where}.source and {where}.weight_name"]))
        ]
        return given
    return []


def objections(denoiser: Denoiser, where: str) -> list[UserError]:
    """What is calibrated for the family's checkpoints and says nothing of a denoiser's own."""
    if denoiser.weights is None:
        return []
    return [
        UserError(
            f"{where}: {a.kind} without coefficients, on weights of the method's own",
            "coefficients fitted to these weights; the family's belong to the family's checkpoint",
            "give the accelerator its coefficients, highest power first",
        )
        for a in denoiser.accelerators
        if getattr(a, "coefficients", ()) is None
    ]
