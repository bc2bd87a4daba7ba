"""`slurmstack inventory NODE`: all that a node holds, a thing a line."""

from __future__ import annotations

import re
from typing import Any

import pytest

from operations.inventory import of, summary, table
from operations.stack import NoSuchStack
from tests.unit.operations.test_cli import printed

HELD: dict[str, Any] = {
    "ctl": {
        "roles": ["munge-key", "slurmctld"],
        "applied": {"munge-key": "2026-01-02T03:04:05Z"},
        "keys": {"munge": "0123456789abcdef" * 4},
        "files": {"/etc/b": "b" * 64, "/etc/a": "a" * 64},
        "packages": {"munge": "0.5.15-1"},
        "units": {"munge.service": "active"},
    },
    "cn02": {"lost": True},
}


def lines(held: dict[str, Any]) -> list[list[str]]:
    """Words that two or more blanks part."""
    return [re.split(r" {2,}", line.strip()) for line in printed(table(held), 100) if line.strip()]


def test_a_node_s_things_are_a_line_each_by_kind_and_name() -> None:
    assert lines(of(HELD, "ctl")) == [
        ["node", "what", "is"],
        ["ctl"],
        ["role", "munge-key", "2026-01-02T03:04:05Z"],
        ["role", "slurmctld", "at a time not known"],
        # Twelve digits tell two apart by eye.
        ["key", "munge", "0123456789ab"],
        ["file", "/etc/a", "a" * 12],
        ["file", "/etc/b", "b" * 12],
        ["package", "munge", "0.5.15-1"],
        ["unit", "munge.service", "active"],
    ]


def test_nodes_come_by_name_and_a_lost_one_is_named() -> None:
    told = lines(of(HELD, None))
    assert told[1] == ["cn02", "lost"]
    assert told[2] == ["ctl"]


def test_all_nodes_are_a_line_each() -> None:
    held = {**HELD, "cn01": {**HELD["ctl"], "keys": {}, "packages": {}}}
    head, *rows = [line.rstrip() for line in printed(summary(held), 80)]
    assert head.split() == ["node", "roles", "munge", "key", "files", "packages", "units"]
    assert [row.split()[0] for row in rows] == ["cn01", "cn02", "ctl"]
    assert rows[1].split() == ["cn02", "lost"]
    # A node without the key has nothing in its place; numbers end where their heads do.
    assert rows[0].split()[1:] == ["munge-key,", "slurmctld", "2", "0", "1"]
    assert rows[2].split()[3:] == ["0123456789ab", "2", "1", "1"]
    for column in ("files", "packages", "units"):
        assert rows[2][head.index(column) + len(column) - 1].isdigit()


def test_names_are_whole_in_few_columns() -> None:
    roles = ["slurmctld", "monitoring-secrets", "container-registry"]
    held = {"ctl": {**HELD["ctl"], "roles": roles}}
    assert "…" not in "".join(printed(summary(held), 60))


def test_an_inventory_before_there_were_times_can_be_read() -> None:
    held = {"ctl": {**HELD["ctl"]}}
    del held["ctl"]["applied"]
    assert ["role", "munge-key", "at a time not known"] in lines(held)


def test_a_node_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(NoSuchStack, match=r"^no node cn09 in the inventory; it has cn02, ctl$"):
        of(HELD, "cn09")
