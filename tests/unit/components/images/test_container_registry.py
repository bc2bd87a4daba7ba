"""The registry for docker:// names: who reads, who writes, whom hosts trust."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml

from components.images.container_registry import (
    CA,
    HTPASSWD,
    MIRRORS,
    client_bundle,
    clients,
    registry_bundle,
    secrets_bundle,
)
from remote.bundle import Bundle, Check, Command, File, Guard, Unit
from settings import Settings, parse
from tests.unit.components.test_cluster import bare

HUB = {"docker.io": {"url": "https://registry-1.docker.io", "port": 5010}}
FOLDER = "/etc/docker/registry/slurmstack"


def settings(**registry: Any) -> Settings:
    return parse({**bare(), "registry": registry})


def files(of: Bundle) -> dict[str, File]:
    return {it.path: it for it in of.parts if isinstance(it, File)}


def test_all_read_and_one_writes_the_same_folder() -> None:
    of = registry_bundle("ctl", settings(root="/srv/images"))
    texts = {path: yaml.safe_load(str(it.content)) for path, it in files(of).items()
             if path.endswith(".yml")}  # fmt: skip
    reader, writer = (texts[f"{FOLDER}/slurmstack-registry{it}.yml"] for it in ("", "-push"))
    assert reader["storage"]["filesystem"] == writer["storage"]["filesystem"]
    assert reader["storage"]["filesystem"] == {"rootdirectory": "/srv/images"}
    assert reader["storage"]["maintenance"] == {"readonly": {"enabled": True}}
    assert "auth" not in reader
    assert "maintenance" not in writer["storage"]
    assert writer["auth"]["htpasswd"]["path"] == HTPASSWD
    assert (reader["http"]["addr"], writer["http"]["addr"]) == (":5000", ":5001")
    for text in (reader, writer):
        assert set(text["http"]["tls"].values()) == {f"{FOLDER}/tls/cluster.pem"}
    # That of the package speaks no TLS.
    (package,) = [it for it in of.parts if isinstance(it, Unit) and it.name.startswith("docker")]
    assert (package.enabled, package.running) == (False, False)


def test_a_mirror_has_a_process_and_a_folder_of_its_own() -> None:
    of = registry_bundle("ctl", settings(mirrors=HUB))
    name = "slurmstack-registry-mirror-docker.io"
    text = yaml.safe_load(str(files(of)[f"{FOLDER}/{name}.yml"].content))
    assert text["proxy"] == {"remoteurl": "https://registry-1.docker.io"}
    assert text["storage"] == {
        "filesystem": {"rootdirectory": "/var/lib/docker-registry/mirrors/docker.io"}
    }
    assert f"{name}.service" in [it.name for it in of.parts if isinstance(it, Unit)]
    node = client_bundle("cn01", settings(mirrors=HUB), "pem")
    assert 'prefix = "docker.io"' in str(files(node)[MIRRORS].content)
    assert 'location = "10.73.0.10:5010"' in str(files(node)[MIRRORS].content)
    (check,) = [it for it in node.parts if isinstance(it, Check)]
    for port in (5000, 5010):
        assert f"https://10.73.0.10:{port}/v2/" in check.script
    assert MIRRORS not in files(client_bundle("cn01", settings(), "pem"))


def test_a_mirrors_password_is_in_the_secret_bundle_alone() -> None:
    login = {"username": "an:na", "passwordSecret": "hub"}
    mirrors = {"docker.io": {**HUB["docker.io"], "login": login}}
    password = "a'\"{{x}}#<&\\:-of-the-hub"
    of = parse({**bare(), "registry": {"mirrors": mirrors}, "registrySecrets": {"hub": password}})
    name = "slurmstack-registry-mirror-docker.io"
    conf, shut = f"{FOLDER}/{name}.login.yml", secrets_bundle("ctl", "made", "a" * 21, of)
    found = files(shut)[conf]
    assert (found.owner, found.mode) == ("root:docker-registry", "0640")
    assert yaml.safe_load(str(found.content))["proxy"] == {
        "remoteurl": "https://registry-1.docker.io", "username": "an:na", "password": password,
    }  # fmt: skip
    # Another password has the process start anew, which another bundle begins.
    (again,) = [it for it in shut.parts if isinstance(it, Command)]
    assert again.on == (conf,)
    assert f"systemctl restart {name}.service" in again.script
    main = registry_bundle("ctl", of)
    assert f"{FOLDER}/{name}.yml" not in files(main)
    assert f"serve {conf}" in str(files(main)[f"/etc/systemd/system/{name}.service"].content)
    assert "of-the-hub" not in "".join(str(it.content) for it in files(main).values())


def test_the_password_is_hashed_and_root_s() -> None:
    found = files(secrets_bundle("ctl", "a-password-made", "a" * 21, settings(user="ci")))
    user, _, hashed = str(found[HTPASSWD].content).strip().partition(":")
    assert user == "ci"
    assert bcrypt.checkpw(b"a-password-made", hashed.encode())
    assert (found[HTPASSWD].owner, found[HTPASSWD].mode) == ("root:docker-registry", "0640")
    assert [it.mode for path, it in found.items() if path.endswith("/password")] == ["0400"]


def test_who_fetches_trusts_it() -> None:
    assert clients(settings()) == ("cn01", "cn02", "ctl")
    assert str(files(client_bundle("cn01", settings(), "pem"))[CA].content) == "pem"


@pytest.mark.parametrize(("before", "after", "refused"), [(1, 0, 1), (0, 0, 0), (1, 1, 0)])
def test_images_are_not_left_behind(tmp_path: Path, before: int, after: int, refused: int) -> None:
    """What the guard says when the folder is another one: (images before, there, exit code)."""
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, images in ((old, before), (new, after)):
        (folder / "docker/registry/v2/repositories").mkdir(parents=True)
        if images:
            (folder / "docker/registry/v2/repositories/train").mkdir()
    of = registry_bundle("ctl", settings(root=str(new)))
    (guard,) = [it for it in of.parts if isinstance(it, Guard)]
    conf = tmp_path / "slurmstack-registry.yml"
    was = files(registry_bundle("ctl", settings(root=str(old))))
    conf.write_text(str(was[f"{FOLDER}/slurmstack-registry.yml"].content))
    script = guard.script.replace(f"{FOLDER}/slurmstack-registry.yml", str(conf))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == refused, done
    assert (f"cp -a {old}/. {new}/" in done.stdout) is bool(refused)
