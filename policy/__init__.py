"""A policy pack: rules that hold whoever edits the program or the settings (policy/README.md)."""
