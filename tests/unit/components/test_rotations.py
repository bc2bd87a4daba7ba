"""Scripts that change a key and tell daemons of it: killed before each thing they do, and refused.

What counts is what a daemon was last told. After the next run each daemon has read what lies on the
disk, and the one after it tells nobody anything.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.keys.certificate import Certificate
from settings.jwt import Jwt
from templates.rendering import render
from tests.unit.remote.test_crash import COUNT, points

pytestmark = pytest.mark.slow

USER = getpass.getuser()
CHANGING = ("mv", "cp", "sync", "rm", "chmod", "mkdir", "systemctl", "scontrol")
#: Daemons read what lies on the disk when they are told; `refuses` names one that does not.
STAND_INS = {
    "systemctl": """
        case "$*" in
            *is-active*) exit 0 ;;
            reset-failed*) exit 0 ;;
            "restart slurmdbd.service")
                daemon=slurmdbd; set -- "$FOLDER/jwt.key" "$FOLDER/slurm.jwks" ;;
            "reload haproxy.service") daemon=haproxy; set -- "$FOLDER/jwt/cluster.pem" ;;
            *) echo "not understood: $*" >&2; exit 9 ;;
        esac
        echo "$daemon" >>"$STANDIN/told"
        [ "$(cat "$STANDIN/refuses" 2>/dev/null)" != "$daemon" ] || exit 1
        cat "$@" >"$STANDIN/$daemon" """,
    "scontrol": """
        [ "$1" = reconfigure ] || { echo "Slurmctld(primary) at ctl is UP"; exit 0; }
        echo slurmctld >>"$STANDIN/told"
        [ "$(cat "$STANDIN/refuses" 2>/dev/null)" != slurmctld ] || { echo Invalid; exit 1; }
        cat "$FOLDER/jwt.key" "$FOLDER/slurm.jwks" >"$STANDIN/slurmctld" """,
    "chown": "exit 0",
}


class Place:
    """A folder in the place of /etc/slurm, and what stands for the daemons."""

    def __init__(self, folder: Path, render_script: Callable[[Path], str]) -> None:
        self.folder, self.standin = folder / "slurm", folder / "standin"
        self.render = render_script
        (self.folder / "jwt").mkdir(parents=True)
        (self.standin / "bin").mkdir(parents=True)
        self._write_configuration()
        for name in {*CHANGING, *STAND_INS}:
            real = shutil.which(name, path="/usr/sbin:/usr/bin:/bin")
            text = STAND_INS.get(name, f'exec {real} "$@"')
            before = COUNT if name in CHANGING else ""
            (self.standin / "bin" / name).write_text(f"#!/bin/sh\n{before}{text}\n")
            (self.standin / "bin" / name).chmod(0o755)

    def copy(self, folder: Path) -> Place:
        """The same in another folder."""
        shutil.copytree(self.folder.parent, folder)
        place = object.__new__(Place)
        place.folder, place.standin = folder / "slurm", folder / "standin"
        place.render = self.render
        place._write_configuration()
        return place

    def _write_configuration(self) -> None:
        for name in ("slurm.conf", "slurmdbd.conf"):
            (self.folder / name).write_text(f"AuthAltParameters=jwks={self.folder}/slurm.jwks\n")

    def run(self, *words: str, crash_at: int = 0) -> subprocess.CompletedProcess[str]:
        """The script, killed before the thing of this number."""
        (self.standin / "count").write_text("0\n")
        script = self.standin / "script"
        text = self.render(self.folder).replace("/etc/slurm/", f"{self.folder}/")
        for name in ("slurm", "root"):
            text = text.replace(f"400 {name}", f"400 {USER}")
        script.write_text(text)
        return subprocess.run(
            ["sh", "-c", 'echo $$ >"$STANDIN/pid"; exec dash "$@"', "sh", script, *words],
            env={
                "PATH": f"{self.standin}/bin:/usr/sbin:/usr/bin:/bin",
                "STANDIN": str(self.standin),
                "FOLDER": str(self.folder),
                "CRASH_AT": str(crash_at),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )

    def count(self) -> int:
        return int((self.standin / "count").read_text())

    def take_told(self) -> list[str]:
        """Daemons that were told since the last time."""
        log = self.standin / "told"
        told = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return told

    def read(self, daemon: str) -> bytes:
        """What a daemon runs by."""
        return (self.standin / daemon).read_bytes()

    def on_disk(self, *names: str) -> bytes:
        return b"".join((self.folder / name).read_bytes() for name in names)


JWT_FILES = ("jwt.key", "slurm.jwks")


def jwt_script(keys: list[str], scontrol_key: str) -> Callable[[Path], str]:
    setting = Jwt.model_validate({"keys": keys, "scontrolKey": scontrol_key})

    def text(folder: Path) -> str:
        values: dict[str, Any] = {
            "folder": folder / "jwt", "jwks": folder / "slurm.jwks", "hs256": folder / "jwt.key"
        }  # fmt: skip
        return render("keys/jwt-keys.sh", setting=setting, **values)

    return text


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two RSA keys, made once."""
    folder = tmp_path_factory.mktemp("pems")
    for name in ("a", "b"):
        words = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
        subprocess.run([*words, "-out", folder / f"{name}.pem"], check=True, capture_output=True)
        (folder / f"{name}.pem").chmod(0o400)
    return folder


def jwt_place(folder: Path, pems: Path) -> Place:
    """Keys that the daemons know, and settings that ask for others: both kinds at once."""
    place = Place(folder, jwt_script(["a"], "1"))
    (place.folder / "jwt/trusted").write_text("")
    for name in ("a", "b"):
        shutil.copy(pems / f"{name}.pem", place.folder / f"jwt/{name}.pem")
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert sorted(place.take_told()) == ["slurmctld", "slurmdbd"]
    shutil.copy(pems / "b.pem", place.folder / "jwt/b.pem")  # it was forgotten
    place.render = jwt_script(["b", "a"], "2")
    return place


def assert_taken_up(place: Place, where: str) -> None:
    for daemon in ("slurmdbd", "slurmctld"):
        assert place.read(daemon) == place.on_disk(*JWT_FILES), f"{where}: {daemon} runs by others"
    assert [path.name for path in (place.folder / "jwt").glob("previous*")] == [], where
    place.take_told()
    done = place.run("check")
    assert done.returncode == 0, f"{where}: {done.stdout}"
    done = place.run()
    assert done.returncode == 0, f"{where}: {done.stderr}"
    assert place.take_told() == [], where


def test_new_keys_reach_the_daemons_wherever_a_run_is_killed(tmp_path: Path, pems: Path) -> None:
    before = jwt_place(tmp_path / "before", pems)
    place = before.copy(tmp_path / "count")
    assert place.run().returncode == 0
    total = place.count()
    assert total > 15
    for point in range(1, total + 1):
        place = before.copy(tmp_path / str(point))
        old = place.on_disk(*JWT_FILES)
        done = place.run(crash_at=point)
        assert done.returncode == -9, f"point {point}"
        done = place.run()
        assert done.returncode == 0, f"point {point}: {done.stderr}"
        new = place.on_disk(*JWT_FILES)
        assert new[:32] != old[:32], f"point {point}: the key of scontrol is the old one"
        assert len(json.loads(new[32:])["keys"]) == 2, f"point {point}"
        assert_taken_up(place, f"point {point}")


@pytest.mark.parametrize("daemon", ["slurmdbd", "slurmctld"])
def test_new_keys_that_a_daemon_refuses_give_way(tmp_path: Path, pems: Path, daemon: str) -> None:
    place = jwt_place(tmp_path, pems)
    old = place.on_disk(*JWT_FILES)
    (place.standin / "refuses").write_text(daemon)
    for _ in range(2):
        done = place.run()
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].endswith("the old ones are back")
        assert place.on_disk(*JWT_FILES) == old
        assert place.read("slurmctld") == old
        assert place.read("slurmdbd") == old
    (place.standin / "refuses").unlink()
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert place.on_disk("jwt.key") != old[:32]
    assert_taken_up(place, "afterwards")


def test_a_mode_that_was_changed_is_put_right_and_nobody_is_told(
    tmp_path: Path, pems: Path
) -> None:
    place = jwt_place(tmp_path, pems)
    assert place.run().returncode == 0
    place.take_told()
    (place.folder / "jwt.key").chmod(0o644)
    assert place.run("check").returncode == 1
    assert place.run().returncode == 0
    assert place.run("check").returncode == 0
    assert (place.folder / "jwt.key").stat().st_mode & 0o777 == 0o400
    assert place.take_told() == []


def test_keys_of_the_version_before_count_as_told(tmp_path: Path, pems: Path) -> None:
    """That version kept no memory of it: a stack that it made restarts nothing."""
    place = jwt_place(tmp_path, pems)
    assert place.run().returncode == 0
    place.take_told()
    shutil.rmtree(place.folder / "jwt/told")
    assert place.run().returncode == 0
    assert place.take_told() == []


def certificate_script(*names: str) -> Callable[[Path], str]:
    def text(folder: Path) -> str:
        certificate = Certificate(
            name="rest", of="it", of_what="it", authority="its CA", folder=str(folder / "jwt"),
            names=names, days=90, renew_days=30, told="haproxy",
        )  # fmt: skip
        return render("keys/certificate.sh", certificate=certificate)

    return text


def certificate_place(folder: Path) -> Place:
    place = Place(folder, certificate_script("ctl"))
    done = place.run()
    assert done.returncode == 0, done.stderr
    assert place.take_told() == ["haproxy"]
    place.render = certificate_script("ctl", "other")
    return place


def assert_served(place: Place, where: str) -> None:
    tls = place.folder / "jwt"
    assert place.read("haproxy") == place.on_disk("jwt/cluster.pem"), where
    shown = subprocess.run(
        ["openssl", "verify", "-CAfile", tls / "ca.crt", tls / "cluster.pem"], capture_output=True
    )
    assert shown.returncode == 0, where
    place.take_told()
    done = place.run("check")
    assert done.returncode == 0, f"{where}: {done.stdout}"
    assert place.run().returncode == 0
    assert place.take_told() == [], where


@pytest.mark.parametrize("first", [True, False], ids=["with its CA", "anew"])
def test_a_certificate_is_served_wherever_a_run_is_killed(tmp_path: Path, first: bool) -> None:
    where = tmp_path / "before"
    before = Place(where, certificate_script("ctl")) if first else certificate_place(where)
    place = before.copy(tmp_path / "count")
    assert place.run().returncode == 0
    total = place.count()
    assert total > 6
    for point in points(total):
        place = before.copy(tmp_path / str(point))
        assert place.run(crash_at=point).returncode == -9, f"point {point}"
        done = place.run()
        assert done.returncode == 0, f"point {point}: {done.stderr}"
        assert_served(place, f"point {point}")


def test_a_reload_that_failed_is_tried_again(tmp_path: Path) -> None:
    place = certificate_place(tmp_path)
    (place.standin / "refuses").write_text("haproxy")
    assert place.run().returncode == 1
    assert place.run("check").returncode == 1
    made = hashlib.sha256(place.on_disk("jwt/cluster.pem")).hexdigest()
    (place.standin / "refuses").unlink()
    assert place.run().returncode == 0
    assert hashlib.sha256(place.on_disk("jwt/cluster.pem")).hexdigest() == made
    assert_served(place, "afterwards")


@pytest.mark.skipif(os.geteuid() != 0, reason="root reads any file: the mode is looked at")
def test_a_private_key_that_was_opened_is_closed(tmp_path: Path) -> None:
    place = certificate_place(tmp_path)
    assert place.run().returncode == 0
    (place.folder / "jwt/ca.key").chmod(0o644)
    assert place.run("check").returncode == 1
    assert place.run().returncode == 0
    assert_served(place, "afterwards")
