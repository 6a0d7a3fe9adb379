"""Typed experiments, plug-ins, YAML files and the command line."""
