"""The weights that VBench's dimensions want: which, where they must lie, whether they are there.

15 of the 16 dimensions want some, about 7.4 GB in all.  Once they are placed nothing is looked
up on a network.  Fetched on request is only what its publisher licenses for any use; for the
rest there is a sentence that says where to get it and where to put it.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from srbench.errors import UserError
from srbench.store.objects import write_atomic
from srbench.vbench import environment

TIMEOUT = 20  # seconds without an answer
FREE = ("Apache-2.0", "MIT")
UNCHECKED = "not checked: see the publisher"
STATIC_FILTER = "static_filter"  # wants weights as a dimension does
GRIT = ("object_class", "multiple_objects", "color", "spatial_relationship")
_USED = "https://huggingface.co/OpenGVLab/VBench_Used_Models/resolve/main"
_DINO = ("subject_consistency",)
_VICLIP = ("temporal_style", "overall_consistency")
_BERT = ("scene", *GRIT)


@dataclass(frozen=True)
class File:
    """One file of one or several dimensions.

    path: below the folder of weights.  megabytes: about; the publishers state none.  source:
    where it comes from, a URL, or `env:` and a path in VBench's environment.  licence: of the
    publisher's code, where the weights state none of their own.  sha256: of the whole, or as
    much of it as its publisher tells; empty for none.
    """

    path: str
    megabytes: float
    publisher: str
    licence: str
    source: str
    dimensions: tuple[str, ...]
    sha256: str = ""

    @property
    def is_free(self) -> bool:
        """Whether it is fetched on request."""
        return self.licence in FREE

    @property
    def origin(self) -> str:
        """Where it comes from, in words."""
        inside = self.source.removeprefix("env:")
        return self.source if inside == self.source else f"VBench's environment, {inside} of its packages"


FILES: tuple[File, ...] = (
    *(
        File(
            f"dino_model/facebookresearch_dino_main/{name}",
            0.02,
            "facebookresearch/dino",
            "Apache-2.0",
            f"https://raw.githubusercontent.com/facebookresearch/dino/main/{name}",
            _DINO,
        )
        for name in ("hubconf.py", "vision_transformer.py", "utils.py")
    ),
    *(
        File(
            path,
            343,
            "facebookresearch/dino",
            "Apache-2.0",
            "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
            _DINO,
        )
        # VBench asks for the first and loads the second
        for path in (
            "dino_model/dino_vitbase16_pretrain.pth",
            "torch/hub/checkpoints/dino_vitbase16_pretrain.pth",
        )
    ),
    File(
        "clip_model/ViT-B-32.pt",
        354,
        "openai/CLIP",
        "MIT",
        "https://openaipublic.azureedge.net/clip/models/"
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
        ("background_consistency", "appearance_style"),
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    ),
    File(
        "clip_model/ViT-L-14.pt",
        933,
        "openai/CLIP",
        "MIT",
        "https://openaipublic.azureedge.net/clip/models/"
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
        ("aesthetic_quality",),
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    ),
    File(
        "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
        0.004,
        "LAION-AI/aesthetic-predictor",
        "MIT",
        "https://raw.githubusercontent.com/LAION-AI/aesthetic-predictor/main/sa_0_4_vit_l_14_linear.pth",
        ("aesthetic_quality",),
    ),
    File(
        "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
        108,
        "chaofengc/IQA-PyTorch",
        UNCHECKED,
        "https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/"
        "musiq_spaq_ckpt-358bb6af.pth",
        ("imaging_quality",),
        "358bb6af",
    ),
    File(
        "amt_model/amt-s.pth",
        12,
        "MCG-NKU/AMT",
        "CC BY-NC 4.0",
        "https://huggingface.co/lalala125/AMT/resolve/main/amt-s.pth",
        ("motion_smoothness",),
    ),
    File(
        "raft_model/models/raft-things.pth",
        21,
        "princeton-vl/RAFT",
        UNCHECKED,
        "models.zip, which princeton-vl/RAFT's download_models.sh names",
        ("dynamic_degree", STATIC_FILTER),
    ),
    File(
        "umt_model/l16_ptk710_ftk710_ftk400_f16_res224.pth",
        1220,
        "OpenGVLab/unmasked_teacher",
        UNCHECKED,
        f"{_USED}/l16_ptk710_ftk710_ftk400_f16_res224.pth",
        ("human_action",),
    ),
    File(
        "ViCLIP/ViClip-InternVid-10M-FLT.pth",
        1710,
        "OpenGVLab/InternVideo",
        "Apache-2.0",
        f"{_USED}/ViClip-InternVid-10M-FLT.pth",
        _VICLIP,
    ),
    File(
        "ViCLIP/bpe_simple_vocab_16e6.txt.gz",
        1.3,
        "openai/CLIP",
        "MIT",
        "env:clip/bpe_simple_vocab_16e6.txt.gz",
        _VICLIP,
    ),
    File(
        "caption_model/tag2text_swin_14m.pth",
        1500,
        "xinyu1205/recognize-anything",
        "Apache-2.0",
        "https://huggingface.co/spaces/xinyu1205/recognize-anything/resolve/main/tag2text_swin_14m.pth",
        ("scene",),
    ),
    File(
        "grit_model/grit_b_densecap_objectdet.pth",
        840,
        "JialianW/GRiT",
        UNCHECKED,
        f"{_USED}/grit_b_densecap_objectdet.pth",
        GRIT,
    ),
    *(
        File(
            f"bert-base-uncased/{name}",
            megabytes,
            "google-bert/bert-base-uncased",
            "Apache-2.0",
            f"https://huggingface.co/google-bert/bert-base-uncased/resolve/main/{name}",
            _BERT if name != "pytorch_model.bin" else ("scene",),
        )
        for name, megabytes in (
            ("vocab.txt", 0.23),
            ("tokenizer_config.json", 0.001),
            ("config.json", 0.001),
            ("pytorch_model.bin", 440),
        )
    ),
)


def of(dimension: str) -> tuple[File, ...]:
    """The files that a dimension wants, or the static filter."""
    return tuple(f for f in FILES if dimension in f.dimensions)


def absent(files: Iterable[File], home: Path | None = None) -> list[File]:
    """Those that are not in the folder of weights, or are empty."""
    root = home or environment.weights_home()
    return [f for f in files if not _is_there(root / f.path)]


def _is_there(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def has_detectron() -> bool:
    """Whether VBench's environment has detectron2; looked up, not imported."""
    return any(environment.folder().glob("lib/python*/site-packages/detectron2*"))


def lacking(dimension: str, home: Path | None = None) -> str:
    """Why a dimension cannot be scored here, with what mends it; empty if it can.

    dimension: or STATIC_FILTER.
    """
    root = home or environment.weights_home()
    parts = []
    if gone := absent(of(dimension), root):
        first = gone[0]
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        parts.append(
            f"{dimension} wants {root / first.path}{more} ({first.publisher}); where to get what: "
            f"srbench vbench weights --dimension {dimension}"
        )
    if dimension in GRIT and not has_detectron():
        parts.append(f"{dimension} wants detectron2 in VBench's environment: {environment.DETECTRON}")
    return "; ".join(parts)


def verify(file: File, path: Path) -> str:
    """What is wrong with the bytes in `path`, by the publisher's hash; empty if nothing, or none is told."""
    if not file.sha256:
        return ""
    with open(path, "rb") as opened:
        found = hashlib.file_digest(opened, "sha256").hexdigest()
    return "" if found.startswith(file.sha256) else f"its sha256 is {found[:12]}…, not {file.sha256[:12]}…"


def fetch(files: Iterable[File], home: Path) -> list[tuple[File, str]]:
    """Get what is not there and may be got; each with "" or why it could not be.

    A file is written whole or not at all, and refused where its hash is told and differs.
    """
    told = []
    for file in absent(files, home):
        if not file.is_free:
            told.append((file, f"its licence ({file.licence}) is yours to accept"))
            continue
        try:
            _get(file, home)
            told.append((file, ""))
        except (OSError, ValueError, UserError) as error:
            told.append((file, f"could not be fetched ({_why(error)})"))
    return told


def _why(error: Exception) -> str:
    if isinstance(error, UserError):
        return error.got
    return str(getattr(error, "reason", None) or error) or type(error).__name__


def _get(file: File, home: Path) -> None:
    target = home / file.path
    twin = next((f for f in FILES if f.source == file.source and _is_there(home / f.path)), None)
    if twin is not None:  # the same bytes, wanted in two places
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to((home / twin.path).resolve())
        return

    def write(path: Path) -> None:
        with contextlib.closing(_opened(file)) as source, open(path, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        if problem := verify(file, path):
            raise UserError(f"{file.path}: {problem}", "the publisher's file", "try again")

    write_atomic(target, write)


def _opened(file: File) -> BinaryIO:
    if file.source.startswith("env:"):
        inside = file.source.removeprefix("env:")
        found = next(environment.folder().glob(f"lib/python*/site-packages/{inside}"), None)
        if found is None:
            raise UserError(
                f"no {inside} in {environment.folder()}", "VBench's environment", environment.SETUP
            )
        return open(found, "rb")
    return urllib.request.urlopen(file.source, timeout=TIMEOUT)
