"""Container images on a lab of its own (root): built, published, fetched and entered, cold and
again; many nodes that fetch one image at once; and what a mount that does not answer costs `up`.

A runtime has no package in the lab: entering is unpacking and running a command in a user
namespace, which stands in for Enroot. Nodes beyond two are readers on one of them that compare what
they get and keep nothing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.fleet import PROJECT
from bench.steps import OnLab, lab_of_its_own, timed
from lab import machine
from lab.names import Lab

ROOT = "/opt/containers"
#: Of the image that many fetch.
MIB = 1024
MANY = (1, 8, 64)
_IMAGE = {"version": "1", "base": {"suite": "trixie"}, "packages": ["python3-minimal"]}
_ENTER = (
    "d=$(mktemp -d) && unsquashfs -q -n -no-xattrs -d $d/root {root}/small.sqsh >/dev/null && "
    "unshare --user --map-root-user --mount --root=$d/root python3 -c 'print(1)' && rm -rf $d"
)
#: One reader: all of it, and its sum.
_READ = (
    "import hashlib, sys, urllib.request as u\n"
    "s, r = hashlib.sha256(), u.urlopen(sys.argv[1])\n"
    "while b := r.read(1 << 20): s.update(b)\n"
    "print(s.hexdigest())"
)
_MEMORY = {"type": "tmpfs", "source": "tmpfs", "options": ["size=8m"]}
_STANDS_IN = PROJECT / "tests" / "silent_file_system.py"
#: What the measuring needs of a node.
_TOOLS = "apt-get install -y -q --no-install-recommends python3 squashfs-tools"
#: Seconds for a script on a node.
_LIMIT = 1800
Row = tuple[str, float, str]


def figures() -> Iterator[Row]:
    """What, seconds, and what is said of it."""
    with lab_of_its_own() as real:
        for node in ("cn01", "cn02"):
            machine.ssh(real.lab, node, _TOOLS, timeout=300)
        yield from _one(real.lab, real)
        yield from _many(real.lab)
        yield from _silent(real.lab, real)


def _one(lab: Lab, real: OnLab) -> Iterator[Row]:
    """An image's way to a job, each step once, and what can be done again once more."""
    _deploy(real, images={"images": {"small": _IMAGE}})
    for verb, words in {
        "build": "from the mirror's packages", "test": "", "publish": "",
        "pull": "two nodes", "pull again": "nothing to fetch",
    }.items():  # fmt: skip
        took = real.slurmstack("image", verb.split()[0], "small")
        yield verb, took.seconds, words
    size = int(machine.ssh(lab, "ctl", f"stat -Lc %s {ROOT}/small.sqsh").stdout) >> 20
    enter = _ENTER.format(root=ROOT)
    # Of this machine, whose page cache all its nodes share.
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    yield "entered on a node, cold", timed(lab, "cn01", enter, _LIMIT), f"{size} MiB"
    yield "entered again, cached", timed(lab, "cn01", enter, _LIMIT), ""


def _many(lab: Lab) -> Iterator[Row]:
    """So many readers at once of an image of a GiB, from the host that serves images."""
    big = f"{ROOT}/big.sqsh"
    part = "head -c 64M /dev/urandom >/run/part"
    machine.ssh(lab, "ctl", f"{part} && for i in $(seq {MIB // 64}); do cat /run/part; done >{big}")
    url = f"http://{lab.address('ctl')}:8461/big.sqsh"
    one = f"python3 -c {shlex.quote(_READ)} {url}"
    for number in MANY:
        before = _sent(lab)
        seconds = timed(lab, "cn01", f"for i in $(seq {number}); do {one} & done; wait", _LIMIT)
        gib = (_sent(lab) - before) / (1 << 30)
        words = f"{gib:.1f} GiB served; {seconds / number:.2f} s for each"
        yield f"{MIB} MiB by {number} at once", seconds, words


def _silent(lab: Lab, real: OnLab) -> Iterator[Row]:
    """`up` with one mount more, beside one that answers and beside one that does not."""
    memory, first, second = (
        {name: {**_MEMORY, "mount": f"/srv/{name}"}} for name in ("memory", "first", "second")
    )
    _deploy(real, storage=memory)
    yield "up, one mount more", _deploy(real, storage=memory | first), ""
    machine.ssh(lab, "cn02", f"cat >/run/silent.py <<'END'\n{_STANDS_IN.read_text()}\nEND")
    machine.ssh(lab, "cn02", "systemd-run -q --unit=silent python3 /run/silent.py /srv/memory")
    try:
        took = _deploy(real, storage=memory | first | second)
        yield "up, one mount more, another is silent", took, "on cn02, FUSE that nobody serves"
    finally:
        machine.ssh(lab, "cn02", "systemctl stop silent; umount -l /srv/memory")


def _deploy(real: OnLab, **values: Any) -> float:
    real.change(lambda it: it | {f"slurmstack:{key}": value for key, value in values.items()})
    return real.pulumi("up", "--yes", "--skip-preview", "--suppress-outputs").seconds


def _sent(lab: Lab) -> int:
    """Bytes that the controller has sent."""
    return int(machine.ssh(lab, "ctl", "cat /sys/class/net/host0/statistics/tx_bytes").stdout)


def main() -> None:
    table = Table(title=f"Container images, {os.cpu_count()} cores", title_justify="left")
    for column in ("what", "seconds", ""):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for what, seconds, words in figures():
        table.add_row(what, f"{seconds:.1f}", words)
    Console().print(table)


if __name__ == "__main__":
    main()
