"""Switch rules: pure functions of the trace, so a stored trace replays them offline."""
