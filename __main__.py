"""The program that Pulumi runs: settings → facts → cluster → outputs."""

from pathlib import Path

import pulumi

from components.cluster import SlurmCluster
from components.facts import hardware
from components.hosts import hosts
from settings import load

project = Path(__file__).parent
stack = pulumi.get_stack()

settings = load()
reached = hosts(settings, project)
found = hardware(settings, reached, project / ".slurmstack" / stack / "facts.json", stack)
cluster = SlurmCluster(settings, reached, found)

pulumi.export("inventory", cluster.inventory)
pulumi.export("cluster", cluster.cluster)
