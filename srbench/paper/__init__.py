"""The SRDiffusion paper: its numbers, tables, figures and claims beside a run."""
