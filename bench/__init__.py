"""Figures of slurmstack: how long a change takes, and what it costs in memory and commands."""
