"""VBench, the official package, driven in an environment of its own; its scores land in a run's records."""
