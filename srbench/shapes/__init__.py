"""The shapes family and its world: how the embedded default is made."""
