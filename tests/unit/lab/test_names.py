"""What follows from a lab's name."""

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.errors import LabError
from lab.names import (
    Lab,
    bridge_name,
    check_name,
    choose_subnet,
    host_part,
    parse_nodes,
    places,
)

NAMES = st.text("0123456789abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=32).filter(
    lambda name: name.strip("-") == name
)


def network(number: int) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(f"10.73.{number}.0/24")


def test_the_default_lab_has_fixed_names_and_addresses() -> None:
    lab = Lab("lab", Path("/checkout"), choose_subnet("lab", []))
    assert lab.bridge == "slurm-lab"
    assert lab.gateway == "10.73.0.1"
    assert [lab.address(node) for node in ("ctl", "cn01", "cn02", "cn03")] == [
        "10.73.0.10",
        "10.73.0.21",
        "10.73.0.22",
        "10.73.0.23",
    ]
    assert lab.machine("cn01") == "lab-cn01"
    assert lab.stack_file == Path("/checkout/Pulumi.lab.yaml")
    assert lab.known_hosts == Path("/checkout/.lab/lab/known_hosts")


@given(NAMES.filter(lambda name: name not in {"lab", "prod"}))
def test_a_further_lab_never_takes_the_default_labs_subnet(name: str) -> None:
    assert 1 <= choose_subnet(name, []) <= 254


def test_a_subnet_is_chosen_again_where_it_is_taken() -> None:
    first = choose_subnet("one", [])
    second = choose_subnet("one", [network(first)])
    assert second != first
    # A wider network that holds the subnet counts, too.
    wide = network(second).supernet(new_prefix=23)
    assert not network(choose_subnet("one", [network(first), wide])).overlaps(wide)
    assert choose_subnet("one", []) == first


def test_the_default_lab_says_when_its_subnet_is_taken() -> None:
    with pytest.raises(LabError, match=r"10\.73\.0\.0/24 is in use"):
        choose_subnet("lab", [network(0)])


def test_no_free_subnet_is_an_error() -> None:
    with pytest.raises(LabError, match="no free subnet"):
        choose_subnet("one", [network(number) for number in range(256)])


@given(NAMES)
def test_a_bridges_name_fits_an_interface(name: str) -> None:
    assert len(bridge_name(name)) <= 15


def test_long_names_give_different_bridges() -> None:
    assert bridge_name("test-long-name-1") != bridge_name("test-long-name-2")
    assert bridge_name("short") == "slurm-short"


@pytest.mark.parametrize("name", ["", "Lab", "a b", "../x", "-a", "a-", "a" * 33, "a_b", "prod"])
def test_names_that_cannot_name_a_lab(name: str) -> None:
    with pytest.raises(LabError, match="cannot name a lab"):
        check_name(name)


def test_nodes_by_number_and_by_name() -> None:
    assert parse_nodes("4") == ["ctl", "login01", "cn01", "cn02"]
    assert parse_nodes("1") == ["ctl"]
    assert parse_nodes("ctl, cn01 cn12") == ["ctl", "cn01", "cn12"]


@pytest.mark.parametrize("text", ["0", "ctl,ctl", "ctl,gpu01", "cn0", "cn235"])
def test_nodes_that_have_no_place(text: str) -> None:
    with pytest.raises(LabError):
        parse_nodes(text)


def test_every_node_has_an_address_of_its_own() -> None:
    nodes = places()
    assert {"ctl", "login01", "cn01", "cn99", "cn100", "cn234"} <= set(nodes)
    parts = [host_part(node) for node in nodes]
    assert len(set(parts)) == len(parts)
    assert min(parts) > 1
    assert max(parts) == 254
    with pytest.raises(LabError):
        host_part("cn00")
