"""The program that Pulumi runs: settings → facts → cluster → outputs."""

import signal
import sys
from pathlib import Path

import pulumi

from components.cluster import SlurmCluster
from components.history import folder
from components.last_outputs import last_outputs
from components.report import report
from discovery.facts import FactsError, hardware
from discovery.host_keys import UnknownHostKey, hosts
from discovery.identities import IdentityError, compare
from settings import SettingsError, load

# Pulumi's engine interrupts the program at the end of a failed run: Python would print a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

#: The exit code of a program that has said itself why it ends: Pulumi adds no error of its own.
_REPORTED = 32

project = Path(__file__).parent
stack = pulumi.get_stack()
place = folder(project, stack)

try:
    settings = load()
    reached = hosts(settings, project)
    found = hardware(settings, reached, place / "facts.json", stack)
    if not pulumi.runtime.is_dry_run():
        compare(settings, reached)
except (SettingsError, UnknownHostKey, FactsError, IdentityError) as error:
    # A report for the operator, without a traceback.
    pulumi.log.error(str(error))
    sys.exit(_REPORTED)
before = last_outputs()
cluster = SlurmCluster(settings, reached, found, before)

# Nothing in it is a secret: Pulumi prints an object of thousands of lines as the one word [secret].
pulumi.export("inventory", pulumi.Output.secret(cluster.inventory))
pulumi.export("cluster", cluster.cluster)
report(cluster.deployed, cluster.answers, before, reached, settings, cluster.stopped, place)
