"""Secrets in the forms in which they might be left somewhere, and the search for them."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.lab.conftest import RunningLab

#: Characters of a mark: too many for chance to make it, few enough to stand on one line.
_RAW, _HEX, _BASE64 = 14, 28, 20


def marks(secret: bytes) -> set[bytes]:
    """Pieces of it as it is, in hex and in base64, wherever in the text it may begin."""
    found = set(_pieces(secret, _RAW))
    found |= set(_pieces(secret.hex().encode(), _HEX))
    found |= set(_pieces(secret.hex().upper().encode(), _HEX))
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + secret)[(0, 2, 3)[shift] : -4]
        found |= set(_pieces(encoded, _BASE64))
        found |= {piece.translate(bytes.maketrans(b"+/", b"-_")) for piece in found}
    return found


def _pieces(text: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(text) - size + 1, size):
        piece = text[start : start + size]
        if not set(piece) & set(b"\0\n") and len(set(piece)) > 3:
            yield piece


def private_marks(pem: bytes) -> set[bytes]:
    """Of a private key: the numbers that nobody else knows. Its other lines hold its public half,
    which certificates and JWKS show to all."""
    block = re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\n.*?-----END[A-Z -]*", pem, re.DOTALL)
    assert block, "no private key in it"
    key = serialization.load_pem_private_key(block[0], None)
    assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)
    whole = key.key_size // 8
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        secret = {numbers.d: whole, numbers.p: whole // 2, numbers.q: whole // 2}
    else:
        secret = {key.private_numbers().private_value: whole}
    return set().union(*(marks(number.to_bytes(size, "big")) for number, size in secret.items()))


@dataclass
class Secrets:
    """What must be found nowhere but in its own place."""

    #: What it is → its marks. Earlier values stay: those that were replaced are secrets, too.
    known: dict[str, set[bytes]] = field(default_factory=dict)

    def add(self, name: str, found: set[bytes]) -> None:
        assert found, f"{name}: no marks to search for"
        self.known.setdefault(name, set()).update(found)

    def take(self, lab: RunningLab) -> None:
        """Those that the cluster has now, read from their own places."""
        for name, place in _PLACES.items():
            for path in lab.ssh("ctl", f"ls {place}").stdout.split():
                data = base64.b64decode(lab.ssh("ctl", f"base64 -w0 {path}").stdout)
                self.add(name, _READ.get(name, marks)(data))

    @property
    def patterns(self) -> bytes:
        """As `grep -f -` takes them: by stdin, so that the search leaves no trace itself."""
        return b"\n".join(sorted(set().union(*self.known.values())))

    def named(self, data: bytes) -> list[str]:
        """Which of them stand in it."""
        return [name for name, found in self.known.items() if any(mark in data for mark in found)]


def _password(conf: bytes) -> set[bytes]:
    match = re.search(rb"^StoragePass=(.*)$", conf, re.MULTILINE)
    assert match, "slurmdbd.conf has no password"
    return marks(match[1])


_PLACES = {
    "munge key": "/etc/munge/munge.key",
    "RS256 private key": "/etc/slurm/jwt/*.pem",
    "HS256 key": "/etc/slurm/jwt.key",
    "key of the REST CA": "/etc/slurm/tls/ca.key",
    "key of the REST server": "/etc/slurm/tls/cluster.pem",
    "slurmdbd's password": "/etc/slurm/slurmdbd.conf",
}
_READ = {
    "RS256 private key": private_marks,
    "key of the REST CA": private_marks,
    "key of the REST server": private_marks,
    "slurmdbd's password": _password,
}

#: All of a node but what the distribution's packages brought.
_FOLDERS = "/dev/shm /etc /home /opt /root /run /srv /tmp /usr/local /var"


def on_node(lab: RunningLab, node: str, secrets: Secrets) -> dict[str, str]:
    """Path → owner and mode of each file on a node with a secret in it."""
    search = (
        f"LC_ALL=C grep -rlaF -D skip -f - {_FOLDERS} 2>/dev/null |"
        ' while read -r path; do stat -c \'%n %U:%a\' "$path" || echo "$path gone:-"; done'
    )
    found = lab.send(node, search, secrets.patterns, ends=(0, 1), timeout=900).decode()
    return dict(line.rsplit(" ", 1) for line in found.splitlines())


def journal(lab: RunningLab, node: str) -> bytes:
    """Of this boot and all before it, with every field: programs' arguments are among them."""
    return lab.send(node, "journalctl --no-pager --all --output=export", b"", timeout=900)


#: Files for one grep: their names fit into its arguments.
_FILES = 500


def here(
    secrets: Secrets, places: Iterable[Path], without: Iterable[Path] = ()
) -> dict[str, list[str]]:
    """File on this machine → the secrets in it. Folders of ``without`` are not looked into."""
    prune = [word for folder in without for word in ("-path", str(folder), "-prune", "-o")]
    existing = [str(place) for place in places if place.exists()]
    words = ["find", *existing, *prune, "-type", "f", "-print0"]
    listed = subprocess.run(words, capture_output=True, check=False).stdout.split(b"\0")
    files = [name for name in listed if name]
    found: list[str] = []
    for start in range(0, len(files), _FILES):
        done = subprocess.run(
            [b"grep", b"-lZaF", b"-f", b"-", b"--", *files[start : start + _FILES]],
            input=secrets.patterns,
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=False,
        )
        found += [os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    return {path: secrets.named(Path(path).read_bytes()) for path in found}


@dataclass
class Watched:
    """Arguments and environments of processes."""

    seen: set[bytes] = field(default_factory=set)

    def look(self) -> None:
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    self.seen.add((process / name).read_bytes())
                except OSError:
                    continue  # it has ended, or is a thread of the kernel


@contextmanager
def watching() -> Iterator[Watched]:
    """Look at every process for as long as this lasts. The lab's machines are containers: their
    processes are this machine's, too."""
    watched, stop = Watched(), threading.Event()

    def run() -> None:
        while not stop.wait(0.005):
            watched.look()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watched
    finally:
        stop.set()
        thread.join()
