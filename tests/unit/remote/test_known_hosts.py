"""`known_hosts` as OpenSSH writes it; ssh-keygen itself hashes the file."""

import re
import shutil
import subprocess
from pathlib import Path

import asyncssh
import pytest

from remote.host import fingerprint, is_ip
from remote.known_hosts import HostKeyError, KnownHosts


def new_key(kind: str) -> str:
    key = asyncssh.generate_private_key(kind)
    return key.export_public_key("openssh").decode().strip()


ED1, ED2 = new_key("ssh-ed25519"), new_key("ssh-ed25519")
ECDSA = new_key("ecdsa-sha2-nistp256")
RSA = new_key("ssh-rsa")
ED448 = new_key("ssh-ed448")


def named(value: object) -> str:
    """The keys by name: names of tests must be the same in each process."""
    text = str(value)
    for name in ("ED1", "ED2", "ED448", "ECDSA", "RSA"):
        text = text.replace(globals()[name], name)
    return text


def known(text: str) -> KnownHosts:
    return KnownHosts.parse(text, "known_hosts")


@pytest.mark.parametrize(
    ("text", "port"),
    [
        (f"cn01 {ED1}", 22),
        (f"other,10.0.0.1 {ED1}", 22),
        (f"# comment\n\ncn* {ED1}\n", 22),
        (f"[cn01]:2222 {ED1}\ncn01 {ED2}", 2222),
        (f"[10.0.0.1]:2222 {ED1}", 2222),
        (f"10.0.0.1 {ED1}", 2222),
        # As ssh: names of the default port stand without one, and networks are patterns, too.
        (f"[cn01]:22 {ED2}\ncn01 {ED1}", 22),
        (f"10.0.0.0/24 {ED1}\n10.0.1.0/24 {ED2}", 22),
        (f"cn01 {ECDSA}\ncn01 {ED1}\ncn01 {RSA}", 22),
        (f"cn01 {ED1}\n10.0.0.1 {ED1}", 22),
        (f"cn01 {ED1}\n@revoked * {ED2}\ncn01 {ED2}", 22),
    ],
    ids=named,
)
def test_found(text: str, port: int) -> None:
    assert known(text).key_for("cn01", "10.0.0.1", port) == ED1


def test_ecdsa_where_there_is_no_ed25519() -> None:
    assert known(f"cn01 {RSA}\ncn01 {ECDSA}").key_for("cn01", "10.0.0.1") == ECDSA


@pytest.mark.parametrize(
    ("text", "port", "message"),
    [
        ("", 22, "known_hosts has no key for cn01 or 10.0.0.1, port 22"),
        (f"[cn01]:2222 {ED1}", 22, "has no key for cn01 or 10.0.0.1, port 22"),
        (f"cn02 {ED1}", 2222, "ssh-keyscan -t ed25519 -p 2222 10.0.0.1 >> known_hosts"),
        (f"cn02 {ED1}", 22, "add it (ssh-keyscan -t ed25519 10.0.0.1 >> known_hosts)"),
        (f"cn01 {RSA}", 22, "has only ssh-rsa, which cannot be pinned; compare with the machine's"),
        (f"cn01 {ED1}\n@revoked cn01 {ED1}", 22, "has only revoked keys"),
        (f"cn01 {RSA}\ncn01 {ED448}", 22, "has only ssh-ed448, ssh-rsa, which cannot be pinned"),
        (f"@cert-authority * {ED1}", 22, "has only a certificate authority"),
        (f"@cert-authority cn01 {ED1}", 22, "has only a certificate authority"),
        (
            f"cn01 {ED1}\n10.0.0.1 {ED2}",
            22,
            "known_hosts has 2 different ssh-ed25519 keys for cn01 and 10.0.0.1; remove the "
            "outdated one (ssh-keygen -R 10.0.0.1 -f known_hosts)",
        ),
        # A key that was withdrawn for the address is none for the name either.
        (f"cn01 {ED1}\n@revoked 10.0.0.1 {ED1}", 22, "has only revoked keys for cn01 and 10.0.0.1"),
    ],
    ids=named,
)
def test_refused(text: str, port: int, message: str) -> None:
    with pytest.raises(HostKeyError, match=re.escape(message)) as error:
        known(text).key_for("cn01", "10.0.0.1", port)
    assert str(error.value).startswith("cn01: host key: ")


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_hashed_by_openssh(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"cn01 {ED1}\n[10.0.0.2]:2222 {ED2}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    assert "cn01" not in path.read_text()
    hashed = KnownHosts.read(path)
    assert hashed.key_for("cn01", "10.0.0.1") == ED1
    assert hashed.key_for("cn02", "10.0.0.2", 2222) == ED2
    with pytest.raises(HostKeyError, match=re.escape(f"{path} has no key for cn02")):
        hashed.key_for("cn02", "10.0.0.2")


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(HostKeyError, match="cannot be read: No such file"):
        KnownHosts.read(tmp_path / "nothing")
    latin = tmp_path / "latin1"
    latin.write_bytes(b"cn01 \xe9")
    with pytest.raises(HostKeyError, match="latin1 cannot be read: not UTF-8 text"):
        KnownHosts.read(latin)
    with pytest.raises(HostKeyError, match="known_hosts: Invalid known hosts"):
        known("@wrong cn01 ssh-ed25519 AAAA")


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="needs ssh-keygen")
def test_fingerprint_is_that_of_openssh() -> None:
    done = subprocess.run(
        ["ssh-keygen", "-l", "-f", "-"], input=ED1, capture_output=True, text=True, check=True
    )
    assert fingerprint(ED1) == done.stdout.split()[1]
    with pytest.raises(ValueError, match="not an SSH public key"):
        fingerprint("ssh-ed25519 nonsense")


@pytest.mark.parametrize(
    ("text", "address"),
    [("10.0.0.1", True), ("fd00::1", True), ("cn01", False), ("10.0.0.256", False)],
)
def test_an_address_is_told_from_a_name(text: str, address: bool) -> None:
    assert is_ip(text) is address
