"""Engines: where units run."""
