"""People in the settings: whose numbers and names they are, and what else names them."""

from __future__ import annotations

from typing import Any

import pytest

from settings import parse
from settings.problems import SettingsError
from tests.unit.components.test_cluster import bare

ANNA = {"uid": 6001}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anna@desk"


def problems(**changes: Any) -> list[str]:
    try:
        parse({**bare(), **changes})
    except SettingsError as error:
        return [str(it).removeprefix("slurmstack:directory.") for it in error.problems]
    return []


def of_local(users: Any, groups: Any = None, **changes: Any) -> list[str]:
    return problems(directory={"local": {"users": users, "groups": groups or {}}}, **changes)


def test_all_mistakes_are_told_at_once() -> None:
    users = {
        "anna": {"uid": 6001, "groups": ["optics", "nogroup"]},
        "ben": {"uid": 6001, "gid": 6100},
        "slurm": {"uid": 6003},
        "dora": {"uid": 64030},
        "emil": {"uid": 6005, "group": "gone"},
        "optics": {"uid": 6006},
        "finn": {"uid": 6007, "account": "physics"},
    }
    told = of_local(users, {"optics": {"gid": 6100}, "root": {"gid": 6101}})
    for path in (
        "local.users.anna.groups: ",
        "local.users.ben.uid: ",
        "local.users.ben.gid: ",
        "local.users.slurm: ",
        "local.users.dora.uid: ",
        "local.users.emil.group: ",
        "local.groups.optics: ",
        "local.groups.root: ",
        "local.users.finn.account: ",
    ):
        assert [it for it in told if it.startswith(path)], (path, told)


@pytest.mark.parametrize(
    ("user", "word"),
    [
        ({"uid": 999}, "1000"),
        ({"uid": 65534}, "the system's"),
        ({"uid": 6001, "sshKeys": ["AAAAC3Nz"]}, "a public key"),
        ({"uid": 6001, "sshKeys": [f"{KEY}\n{KEY}"]}, "a public key"),
        ({"uid": 6001, "sshKeys": [f'command="sh" {KEY}']}, "a public key"),
        ({"uid": 6001, "fullName": "Anna: root"}, "without colons"),
        ({"uid": 6001, "shell": "bash"}, "a whole path"),
        ({"uid": 6001, "gid": 6001, "group": "optics"}, "not both"),
    ],
)
def test_what_cannot_be_a_person_is_refused(user: dict[str, Any], word: str) -> None:
    told = of_local({"anna": user}, {"optics": {"gid": 6100}})
    assert len(told) == 1
    assert told[0].startswith("local.users.anna")
    assert word in told[0]


@pytest.mark.parametrize("name", ["Anna", "-anna", "an na", "anna:x", "a" * 33])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    assert of_local({name: ANNA})


def test_a_number_of_a_service_is_nobody_elses() -> None:
    (told,) = of_local({"anna": {"uid": 6001}}, identities={"munge": {"uid": 6001}})
    assert (
        told == "local.users.anna.uid: expected each number once; found 6001, of service user munge"
    )


def test_a_person_with_an_account_is_a_user_of_accounting() -> None:
    accounting = {"accounts": {"physics": {}}, "users": {"bob": {"Accounts": ["physics"]}}}
    people = {"local": {"users": {"anna": {**ANNA, "account": "physics"}, "ben": {"uid": 6002}}}}
    settings = parse({**bare(), "accounting": accounting, "directory": people})
    assert settings.accounting is not None
    assert {name: [*it.Accounts] for name, it in settings.accounting.users.items()} == {
        "anna": ["physics"],
        "bob": ["physics"],
    }
    assert settings.accounting.users["anna"].DefaultAccount == "physics"


def test_an_account_is_one_of_accountings_and_said_once() -> None:
    accounting = {"accounts": {"physics": {}}, "users": {"anna": {"Accounts": ["physics"]}}}
    (told,) = of_local({"anna": {**ANNA, "account": "physics"}}, accounting=accounting)
    assert told.startswith("local.users.anna.account: expected it here or in")
    (told,) = of_local({"ben": {**ANNA, "account": "optics"}}, accounting=accounting)
    assert told.startswith("local.users.ben.account: expected an account of")


def test_homes_are_where_their_share_is() -> None:
    storage = {"people": {"server": "10.9.9.9", "path": "/export/people", "mount": "/people"}}
    home = {"share": "people", "root": "/people/home"}
    assert problems(storage=storage, directory={"home": home}) == []
    (told,) = problems(storage=storage, directory={"home": {"share": "people"}})
    assert told.startswith("home.root: expected a folder in /people")
    (told,) = problems(directory={"home": home})
    assert told.startswith("home.share: expected a share of")


def test_jobs_do_not_go_through_pam_beside_the_rule() -> None:
    slurm = {"extra": {"UsePAM": "yes"}}
    (told,) = problems(slurm={**bare()["slurm"], **slurm}, directory={"jobAccess": {}})
    assert told.startswith("slurmstack:slurm.extra.UsePAM: ")
