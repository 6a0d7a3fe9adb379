"""What a run has to do, and what that costs."""
