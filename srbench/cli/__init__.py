"""The commands of the `srbench` program, one file each."""
