"""Metrics: pure functions of a video and its reference, each with its facts beside it."""
