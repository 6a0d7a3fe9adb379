"""Running and scoring the cells of a run."""
