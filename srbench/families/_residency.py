"""Which components are on the device, and which wait in the host's memory."""

from __future__ import annotations

import gc
from typing import Any

import torch

from srbench.families._settings import Residency

HOST = torch.device("cpu")


def release(device: torch.device) -> None:
    """Give freed memory back: modules are in reference cycles, and the allocator keeps blocks."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Residents:
    """Brings components to the device by a policy; see `FamilySettings.residency`.

    Only whole modules are moved, so hooks attached to them stay as they are.  `group`
    streams a transformer's blocks with diffusers' own hooks.
    """

    def __init__(self, policy: Residency, device: torch.device) -> None:
        self.policy, self.device = policy, device
        self.here: dict[str, Any] = {}
        self._transformers: set[str] = set()
        self._grouped: set[str] = set()

    def place(self, name: str, module: Any, *, transformer: bool = False) -> Any:
        """`module` on the device, others moved away as the policy says."""
        if name in self.here or name in self._grouped:
            return module
        if transformer:
            self._transformers.add(name)
        for other in [o for o in self.here if self._gives_way(o, transformer)]:
            self._send_home(other)
        if self.policy == "group" and transformer:
            module.enable_group_offload(
                onload_device=self.device,
                offload_device=HOST,
                offload_type="block_level",
                num_blocks_per_group=1,
            )
            self._grouped.add(name)
            return module
        self.here[name] = module.to(self.device)
        return module

    def _gives_way(self, other: str, transformer: bool) -> bool:
        if self.policy == "offload":
            return True
        return self.policy == "swap" and transformer and other in self._transformers

    def _send_home(self, name: str) -> None:
        self.here.pop(name).to(HOST)
        release(self.device)

    def clear(self) -> None:
        """Make room for the text encoder, unless everything may stay."""
        if self.policy != "both":
            for name in list(self.here):
                self._send_home(name)
