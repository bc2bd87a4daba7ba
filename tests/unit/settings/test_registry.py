"""A registry of container images in the settings: what is read, and every mistake at once."""

from __future__ import annotations

from typing import Any

import pytest

from settings import SettingsError, parse
from tests.unit.components.test_cluster import bare

HUB = {"url": "https://registry-1.docker.io", "port": 5010}


def mistakes(registry: dict[str, Any], **more: Any) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        parse({**bare(), "registry": registry, **more})
    return [str(it).removeprefix("slurmstack:registry") for it in refused.value.problems]


def test_nothing_need_be_said() -> None:
    settings = parse({**bare(), "registry": {}, "registryPassword": "twelve-chars"})
    assert settings.registry is not None
    assert (settings.registry.port, settings.registry.push_port) == (5000, 5001)
    assert settings.registry_host == "ctl"
    packages = {**bare(), "packages": {"host": "cn01"}, "registry": {}}
    assert parse(packages).registry_host == "cn01"


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        ({"host": "nowhere"}, ".host: expected a host of slurmstack:hosts; found nowhere"),
        ({"pushPort": 5000}, ".port: expected a port of its own; found 5000"),
        ({"port": 8460}, ".port: expected another one than slurmstack:packages.port; found 8460"),
        (
            {"mirrors": {"docker.io": {**HUB, "port": 5001}}},
            ".pushPort: expected a port of",
        ),
        ({"mirrors": {"Docker": HUB}}, ".mirrors.Docker: expected a registry's name"),
        (
            {"mirrors": {"docker.io": {"url": "http://hub", "port": 5010}}},
            ".mirrors.docker.io.url: expected an https:// address without a path",
        ),
        ({"user": "a:b"}, ".user: expected a user's name, such as push"),
        ({"port": 80}, ".port: expected"),
    ],
)
def test_what_is_wrong_is_said(registry: dict[str, Any], expected: str) -> None:
    assert any(it.startswith(expected) for it in mistakes(registry)), mistakes(registry)


def test_images_are_served_at_another_port() -> None:
    images = {"images": {"small": {"version": "1", "base": {"suite": "trixie"}}}}
    (found,) = mistakes({"port": 8461}, images=images)
    assert found == ".port: expected another one than slurmstack:images.port; found 8461"


LOGIN = {"username": "anna", "passwordSecret": "hub"}


def test_a_mirrors_login_has_its_secret() -> None:
    mirrored = {"mirrors": {"docker.io": {**HUB, "login": LOGIN}}}
    told = parse({**bare(), "registry": mirrored, "registrySecrets": {"hub": "dckr_pat-x"}})
    assert told.registry_secrets["hub"].get_secret_value() == "dckr_pat-x"
    assert "dckr_pat-x" not in repr(told)
    where = ".mirrors.docker.io.login.passwordSecret: expected a name in "
    for secrets in ({}, {"registrySecrets": {"other": "x"}}):
        assert mistakes(mirrored, **secrets) == [f"{where}slurmstack:registrySecrets; found hub"]
    (found,) = mistakes(mirrored, registrySecrets={"hub": "two words"})
    assert found == "Secrets.hub: expected a secret of one word; found text that is none"
    with pytest.raises(SettingsError) as refused:
        parse({**bare(), "registrySecrets": {"hub": "x"}})
    assert "slurmstack:registry beside it" in str(refused.value.problems[0])


@pytest.mark.parametrize("password", ["short", "with a blank in it", "é" * 20])
def test_a_password_is_not_quoted(password: str) -> None:
    (found,) = mistakes({}, registryPassword=password)
    assert "Password: expected 12 to 72 characters" in found
    assert password not in found


def test_a_password_is_for_a_registry() -> None:
    with pytest.raises(SettingsError) as refused:
        parse({**bare(), "registryPassword": "twelve-chars"})
    assert "slurmstack:registry beside it" in str(refused.value.problems[0])


def test_a_registry_that_is_wrong_is_one_mistake() -> None:
    """It is there, so its password has what it is for."""
    assert len(mistakes({"user": "a:b"}, registryPassword="twelve-chars")) == 1
