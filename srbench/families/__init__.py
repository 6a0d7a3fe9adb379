"""Families: a large and a small model that share a VAE and a text encoder."""
