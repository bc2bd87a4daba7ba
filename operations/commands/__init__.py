"""A module for each verb of ``slurmstack``, or group of verbs; operations/cli.py finds them here.

They read words and print; what they do is a function of operations/ that others can call.
"""
