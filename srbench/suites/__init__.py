"""Suites: which prompts, which seeds."""
