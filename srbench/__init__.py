"""srbench: a reproducible benchmark of accelerated text-to-video diffusion."""

__version__ = "0.1.0"
