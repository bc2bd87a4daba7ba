"""Figures for node-exporter go with the role that writes them."""

from __future__ import annotations

import re
from typing import Any

from tests.unit.components.test_bundles import bundles
from tests.unit.components.test_cluster import everything

WATCHED: dict[str, Any] = {
    **everything(),
    "healthCheck": {"by": "slurmstack"},
    "driftCheck": {},
    "monitoring": {},
}


def test_every_role_that_leaves_figures_takes_them_away() -> None:
    roles = {
        text.split("\nrole ", 1)[1].split("\n", 1)[0]: text
        for text in bundles(WATCHED)
        if "\ndirectory /var/lib/slurmstack-metrics" in text
    }
    assert {"health", "drift-check", "node-exporter", "slurm-exporter"} <= set(roles)
    for role, text in roles.items():
        removal = r"^command \S+ when=remove .*\n(  .*\n)*?  rm -f /var/lib/slurmstack-metrics/"
        assert re.search(removal, text, re.MULTILINE), role


def test_a_check_under_way_is_waited_for() -> None:
    """It would write its figures once more."""
    (text, *_) = (it for it in bundles(WATCHED) if "\nrole health\n" in it)
    assert "flock -w 60 /run/slurmstack-health/lock true" in text
