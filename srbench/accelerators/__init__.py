"""Accelerators: each wraps a model inside a `with` and is gone when it is left."""
