"""The program that Pulumi runs: settings → facts → cluster → outputs."""

from pathlib import Path

import pulumi

from components.cluster import SlurmCluster
from discovery.facts import FactsError, hardware
from discovery.host_keys import UnknownHostKey, hosts
from settings import SettingsError, load

project = Path(__file__).parent
stack = pulumi.get_stack()

try:
    settings = load()
    reached = hosts(settings, project)
    found = hardware(settings, reached, project / ".slurmstack" / stack / "facts.json", stack)
except (SettingsError, UnknownHostKey, FactsError) as error:
    # A report for the operator, without a traceback.
    raise pulumi.RunError(str(error)) from None
cluster = SlurmCluster(settings, reached, found)

pulumi.export("inventory", cluster.inventory)
pulumi.export("cluster", cluster.cluster)
