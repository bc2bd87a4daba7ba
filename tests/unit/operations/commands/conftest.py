"""What the tests of all verbs have to do with."""

from tests.unit.operations.commands.console import controller, instead, pulumi, slurmstack

__all__ = ["controller", "instead", "pulumi", "slurmstack"]
