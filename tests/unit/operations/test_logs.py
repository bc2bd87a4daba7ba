"""`slurmstack logs` knows each unit that watches a cluster."""

from __future__ import annotations

import pytest

from components.monitoring.grafana import grafana_bundle
from components.monitoring.node_exporter import node_exporter_bundle
from components.monitoring.prometheus import monitoring_bundle
from components.monitoring.slurm_exporter import slurm_exporter_bundle
from operations.logs import _script, of, sources
from operations.refused import Refused
from remote.bundle import Unit
from settings import parse
from tests.unit.components.test_cluster import bare, everything
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


def test_where_the_daemons_of_slurm_log() -> None:
    found = sources(parse({**bare(), **everything()}))
    assert {name: (it.units[0], it.hosts) for name, it in found.items()} == {
        "slurmctld": ("slurmctld", ("ctl",)), "slurmd": ("slurmd", ("cn01", "cn02")),
        "munge": ("munge", ("ctl", "cn01", "cn02", "in")), "sackd": ("sackd", ("in",)),
        "slurmdbd": ("slurmdbd", ("ctl",)), "slurmrestd": ("slurmrestd", ("ctl",)),
        "node-exporter": ("prometheus-node-exporter", ("ctl", "cn01", "cn02", "in")),
        "slurm-exporter": ("slurmstack-slurm-exporter", ("ctl",)),
        "monitoring": ("prometheus", ("ctl",)),
    }  # fmt: skip
    assert set(sources(parse(bare()))) == {"slurmctld", "slurmd", "munge"}


def test_of_a_host_all_of_its_daemons_are_shown() -> None:
    settings = parse({**bare(), "accounting": {}})
    names, source = of("cn01", settings)
    assert (names, source.units, source.hosts) == (["cn01"], ("slurmd", "munge"), ("cn01",))
    names, source = of("ctl,cn02", settings)
    assert names == ["ctl", "cn02"]
    assert source.units == ("slurmctld", "slurmd", "munge", "slurmdbd", "mariadb", "slurmdbd-dump")
    assert "/var/log/slurm/slurmdbd.log" in source.files
    with pytest.raises(Refused, match=r"cn09: no host .*; roles are slurmctld, slurmd, munge"):
        of("cn09", settings)


def test_since_when() -> None:
    _, source = of("slurmd", parse(bare()))
    assert _script(source, "30m", 5) != _script(source, "31m", 5)
    # What follows never ends.
    assert "journal -f " not in _script(source, "30m", 5)
    assert "| tail -n 5\n" in _script(source, "30m", 5)
    assert "'2026-11-25 21:00'" in _script(source, "2026-11-25 21:00", 5)
    with pytest.raises(Refused, match=r"--since .*: expected 30m, 2h, or a date"):
        _script(source, "now; rm -rf /", 5)
