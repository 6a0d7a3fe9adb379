"""Sampling: methods walk together until they part."""
