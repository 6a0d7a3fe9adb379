"""Where weights lie, and what is missing of them; no torch.

A run downloads nothing: hub repositories are read from the hub's cache on this machine, at
a commit.  So the same YAML names the same bytes for ever, online or not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from srbench.config.registry import STRICT
from srbench.errors import UserError
from srbench.families import _checkpoint

BUILTIN, TINY = "builtin:", "tiny:"
# Raised by hand when the recipe of the tiny twins changes.
TINY_VERSION = 1
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
# a model that lies in no subfolder of its repository
_MODEL = ("config.json", "diffusion_pytorch_model*")
PLUMBING = "or family.scale=tiny to try the plumbing without weights"


def hub_cache() -> Path:
    """The hub's cache folder, as huggingface_hub finds it."""
    home = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "huggingface"
    )
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def own_cache() -> Path:
    """Where srbench keeps what it can make again: `$SRBENCH_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SRBENCH_CACHE") or Path(base) / "srbench")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Weights:
    """Where a component's weights lie.

    source: a hub repository, a local folder, `builtin:shapes`, or `tiny:KIND` for the
    random-weight twin of a kind of family.  revision: the commit of a hub repository, 40
    hexadecimal digits.  subfolder: inside it.  size: bytes to download, for messages.
    """

    source: str
    revision: str | None = None
    subfolder: str | None = None
    size: Annotated[float, Field(gt=0)] | None = None

    @property
    def is_tiny(self) -> bool:
        return self.source.startswith(TINY)

    @property
    def is_local(self) -> bool:
        """Whether the source can only be meant as a folder of this machine."""
        if self.is_tiny:
            return False
        is_name = _REPOSITORY.fullmatch(self.source) and Path(self.source).suffix not in _checkpoint.FILES
        return not is_name or self.source.startswith((".", "~")) or Path(self.source).exists()

    @property
    def is_hub(self) -> bool:
        return not self.is_local and not self.is_tiny

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which names the same bytes for ever."""
        return bool(_COMMIT.fullmatch(self.revision or ""))

    @property
    def folder(self) -> Path:
        """The folder that the source means on this machine, whether it is there or not."""
        if self.source.startswith(BUILTIN):
            return Path(__file__).parents[1] / self.source.removeprefix(BUILTIN) / "model"
        if self.is_tiny:
            kind, _, part = self.source.removeprefix(TINY).partition("/")
            return own_cache() / "tiny" / f"{kind}-{TINY_VERSION}" / part
        if self.is_local:
            return Path(self.source).expanduser()
        return self._repository / "snapshots" / (self.revision or "")

    @property
    def _repository(self) -> Path:
        return hub_cache() / f"models--{self.source.replace('/', '--')}"

    @property
    def path(self) -> str:
        """What `from_pretrained` is given: always a folder, so that it never asks a hub."""
        return str(self.folder)

    @property
    def local(self) -> Path | None:
        """The folder, where the weights are files that a user may have made or changed."""
        return self.folder if self.is_local and self.folder.is_dir() else None

    def identity(self, subfolders: Sequence[str]) -> dict[str, object]:
        """What names the bytes in keys, by subfolder.

        Hashes of local files; of a hub repository its commit; of a twin its recipe.
        """
        from srbench.store.objects import file_hash, folder_hash

        if self.is_tiny:
            return {s: [self.source, TINY_VERSION] for s in subfolders}
        if self.is_hub:
            return {s: [self.source, self.revision] for s in subfolders}
        paths = {s: self.folder / s for s in subfolders}
        return {s: file_hash(p) if p.is_file() else folder_hash(p) for s, p in paths.items()}

    def mistakes(
        self, where: str, subfolders: Sequence[str], otherwise: str = PLUMBING, also: Sequence[str] = ()
    ) -> list[UserError]:
        """What is missing, told before anything is imported or loaded.

        subfolders: `.` is the source itself.  otherwise: what a reader can do without the weights.
        also: files that are read where they exist, and so belong into a download.
        """
        if self.is_tiny:
            return []  # made when it is first opened
        try:
            for place in (self.folder, *(self.folder / s for s in subfolders if not s.endswith(".json"))):
                _checkpoint.refuse_single_file(place)
        except _checkpoint.Fault as fault:
            return [_checkpoint.user_error(fault, f"{where}.source")]
        wrong = [w for s in subfolders if (w := incomplete(self.folder / s))]
        if self.is_hub and (wrong or not self.is_pinned):
            return self.lacking(where, [*subfolders, *also], next(iter(wrong), ""), otherwise)
        # a model that is there, whole or not, is looked into; what has no config is only looked for
        models = [s for s in subfolders if (self.folder / s / "config.json").exists()]
        found = [m for s in models for m in _checkpoint.mistakes(self.folder / s, f"{where}.source")]
        if found or not wrong:
            return list({str(m): m for m in found}.values())
        return [
            UserError(
                f"{where}.source = {self.source}: {wrong[0] if self.folder.exists() else 'no such folder'}",
                "a folder in diffusers layout with safetensors weights in it",
                "give its path, or a hub repository's name with its commit",
            )
        ]

    def lacking(self, where: str, inside: Sequence[str], what: str, otherwise: str) -> list[UserError]:
        """How a hub repository's files are got; inside: the folders or files of it that are wanted."""
        if not self.is_pinned:
            return [self._unpinned(where)]
        return [self._not_downloaded(where, inside, what, otherwise)]

    def _unpinned(self, where: str) -> UserError:
        main = self._repository / "refs" / "main"
        known, at = "", f"at revision {self.revision!r}" if self.revision else "without a revision"
        if main.exists():
            known = f"{where}.revision={main.read_text().strip()} is what this machine has as main"
        return UserError(
            f"{where}: {self.source} {at}",
            "a commit of 40 hexadecimal digits, since a name such as main moves",
            f"pin a commit: {known or f'set {where}.revision'}",
        )

    def _not_downloaded(self, where: str, inside: Sequence[str], what: str, otherwise: str) -> UserError:
        files = [f for s in inside for f in ([s] if Path(s).suffix else _MODEL if s == "." else [f"{s}/*"])]
        include = " ".join(f"--include '{f}'" for f in files)
        size = f", {self.size / 1e9:.3g} GB" if self.size else ""
        wanted = ", ".join("model" if s == "." else s for s in inside)
        return UserError(
            f"{where}: {self.source} is not on this machine ({what})",
            f"its {wanted} at {(self.revision or '')[:12]}{size}, in the cache {hub_cache()}",
            f"or set {where}.source to a folder; {otherwise}",
            f"hf download {self.source} --revision {self.revision} {include}",
        )


def incomplete(folder: Path) -> str | None:
    """What is wrong with one component's folder; None if it can be loaded.

    Models have a config.json, and safetensors that an index may list; tokenizers and
    schedulers have files of their own.
    """
    if folder.is_file():
        return None
    if not folder.is_dir():
        return f"no {folder.name} in it"
    if not (folder / "config.json").exists():
        small = any(folder.glob("*.json")) or any(folder.glob("*.model"))
        told = f"no config.json in {folder.name}" if any(folder.iterdir()) else f"{folder.name} is empty"
        return None if small else told
    try:
        _checkpoint.files(folder)
    except _checkpoint.Fault as fault:
        return str(fault.args[0])
    return None
