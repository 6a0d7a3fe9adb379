"""Attaching diffusers hooks for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from diffusers.hooks.hooks import HookRegistry


@contextlib.contextmanager
def hooked(root: Any, hooks: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Register diffusers hooks, and take away all that they leave behind.

    diffusers keeps an empty registry and an instance attribute `forward` on every module
    it has hooked; with those, a later patch of the class would not reach the module.
    """
    for module, name, hook in hooks:
        HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, name)
    # without it the root does not see the new hooks and gives them no cache context
    HookRegistry.check_if_exists_or_initialize(root).invalidate_child_registries_cache()
    try:
        yield
    finally:
        for module, name, _ in hooks:
            registry = HookRegistry.check_if_exists_or_initialize(module)
            registry.remove_hook(name, recurse=False)
            if not registry.hooks:
                vars(module).pop("forward", None)
                del module._diffusers_hook
        HookRegistry.check_if_exists_or_initialize(root).invalidate_child_registries_cache()
        root_registry = root._diffusers_hook
        if not root_registry.hooks:
            del root._diffusers_hook
