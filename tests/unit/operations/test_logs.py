"""`slurmstack logs` knows each unit that watches a cluster."""

from __future__ import annotations

from components.monitoring.grafana import grafana_bundle
from components.monitoring.node_exporter import node_exporter_bundle
from components.monitoring.prometheus import monitoring_bundle
from components.monitoring.slurm_exporter import slurm_exporter_bundle
from operations.logs import sources
from remote.bundle import Unit
from settings import parse
from tests.unit.components.test_cluster import bare
from tests.unit.settings.test_rest import GOOD


def test_each_unit_of_monitoring_has_its_place() -> None:
    settings = parse({**bare(), "monitoring": {"grafana": {}}})
    found = sources(settings)
    known = {unit for source in found.values() for unit in source.units}
    for bundle in (
        node_exporter_bundle("cn01", settings, GOOD), slurm_exporter_bundle("ctl", settings),
        monitoring_bundle("ctl", settings, {}), grafana_bundle("ctl", settings, GOOD),
    ):  # fmt: skip
        # A timer starts the service of its name.
        units = {part.name.rpartition(".")[0] for part in bundle.parts if isinstance(part, Unit)}
        assert units - known == set()
    assert set(found["node-exporter"].hosts) == {*settings.members}


def test_without_servers_there_is_no_role_of_them() -> None:
    alone = {"mode": "exportersOnly", "clientCa": GOOD}
    assert "monitoring" not in sources(parse({**bare(), "monitoring": alone}))
    assert not {"monitoring", "node-exporter"} & {*sources(parse(bare()))}
