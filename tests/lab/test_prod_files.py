"""Production's files, read on real nodes by the programs that they are for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from components.controller.slurm_controller import controller_bundle
from remote.bundle import File, Validate
from settings import parse
from settings.model import Hardware
from tests.lab.conftest import RunningLab
from tests.prod import entries, files, on_node, text
from tests.unit.components.test_cluster import bare
from tests.unit.settings.test_real_gres import CASES as WRITTEN
from tests.unit.settings.test_real_gres import entries as entries_of

pytestmark = pytest.mark.lab

PLACE = "/run/prod"
_UNITS = "/etc/systemd/system/"


def put(lab: RunningLab, path: str, content: str) -> None:
    words = f"mkdir -p $(dirname {path}) && cat >{path}"
    lab.ssh("ctl", f"{words} <<'END-OF-FILE'\n{content}END-OF-FILE\n")


@pytest.fixture(scope="module")
def place(lab: RunningLab) -> Iterator[RunningLab]:
    """The lab with production's files in a folder of their own on the controller."""
    for file in files():
        put(lab, f"{PLACE}{file.name}", file.block)
    yield lab
    lab.ssh("ctl", f"rm -rf {PLACE}")


#: A root for systemd-analyze: production's units over the node's own, or over empty ones where the
#: node lacks them, and each program that they start.
ROOT = rf"""
set -eu
root={PLACE}/root units={PLACE}{_UNITS}
mkdir -p $root{_UNITS} $root/usr/lib/systemd
cp -a /usr/lib/systemd/system $root/usr/lib/systemd/
cp -a $units. $root{_UNITS}
for folder in $units*.d; do
  unit=$(basename $folder .d)
  [ -e $root/usr/lib/systemd/system/$unit ] ||
    printf '[Service]\nExecStart=/usr/bin/true\n' >$root/usr/lib/systemd/system/$unit
  cat $root/usr/lib/systemd/system/$unit
done | cat - $(find $units -type f) | sed -nE 's/^Exec[A-Za-z]*=[-+!@:]*(\/[^ ]+).*/\1/p' |
  while read -r program; do
    mkdir -p $root$(dirname $program)
    cp /usr/bin/true $root$program
  done
"""


def test_each_program_takes_its_files(place: RunningLab) -> None:
    place.ssh("ctl", ROOT)
    read = 0
    for file in files():
        command = on_node(file.name)
        if command is None:
            continue
        unit = ""
        if file.name.startswith(_UNITS):
            unit = file.name.removeprefix(_UNITS).partition("/")[0].removesuffix(".d")
        values = f"FILE={PLACE}{file.name} ROOT={PLACE}/root UNIT={shlex.quote(unit)}"
        done = place.ssh("ctl", f"{values}; {command}", check=False)
        assert done.returncode == 0, f"{file.name}: {done.stderr or done.stdout}"
        read += 1
    assert read > 10


#: slurmctld as production would have it, with a host name, network, state and folders of its own.
#: It runs without slurmdbd, which this node has for its own cluster.
SLURMCTLD = rf"""
set -eu
hostname sm02
ip link set lo up
ip addr add $1/32 dev lo
cp -a /etc/slurm/jwt.key /etc/slurm/slurm.jwks {PLACE}/etc/slurm/
sed -i -e /^AccountingStorage/d -e /^JobAcctGather/d {PLACE}/etc/slurm/slurm.conf
for folder in /var/spool/slurmctld /var/log/slurm /run/slurmctld; do
  mkdir -p $folder
  mount -t tmpfs tmpfs $folder
  chown slurm: $folder
done
mount --bind {PLACE}/etc/slurm /etc/slurm
setpriv --reuid slurm --regid slurm --clear-groups slurmctld -D -i >{PLACE}/log 2>&1 &
daemon=$!
trap 'kill $daemon; wait $daemon || true' EXIT
until scontrol ping 2>/dev/null | grep -q 'is UP'; do
  kill -0 $daemon 2>/dev/null || {{ trap - EXIT; cat {PLACE}/log; exit 1; }}
  sleep 0.2
done
scontrol show config
scontrol show topology
scontrol --oneliner show nodes
scontrol --oneliner show partitions
"""


def test_slurmctld_runs_by_them(place: RunningLab) -> None:
    address = re.search(r"^SlurmctldHost=sm02\((\S+)\)$", text("/etc/slurm/slurm.conf"), re.M)
    assert address
    put(place, f"{PLACE}/slurmctld.sh", SLURMCTLD)
    alone = "unshare --uts --net --mount"
    done = place.ssh("ctl", f"{alone} sh {PLACE}/slurmctld.sh {address[1]}", check=False)
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    shown = dict(re.findall(r"^(\w+) +?= (.*?) *$", said, re.M))
    assert (shown["ClusterName"], shown["SchedulerType"]) == ("dgx", "sched/backfill")
    assert (shown["MaxJobCount"], shown["MessageTimeout"]) == ("200000", "60 sec")
    assert (shown["MpiDefault"], shown["AuthAltTypes"]) == ("pmix", "auth/jwt")
    assert "SwitchName=spine Level=1" in said
    assert "SwitchName=su2 Level=0 LinkSpeed=400 Nodes=cn[33-64]" in said
    nodes = re.findall(r"^NodeName=(cn\d\d) .*Gres=gpu:h100:8 NodeAddr=(\S+)", said, re.M)
    assert [number for number, _ in nodes] == [f"cn{number:02}" for number in range(1, 65)]
    assert len({found for _, found in nodes}) == 64
    assert "PartitionName=main " in said
    # What it could not take up it says, and goes on with something else.
    log = place.ssh("ctl", f"cat {PLACE}/log").stdout
    assert not re.search(r"[Pp]arse error|[Uu]nrecognized|[Ii]nvalid|[Ii]gnor", relevant(log))


def read(lab: RunningLab, folder: str, reader: str) -> tuple[int, str]:
    """What the reader of slurm.conf says of the files in a folder, as the applier asks it before
    they are in place. The host has production's name for it."""
    put(lab, f"{folder}/reader.sh", reader)
    lab.ssh("ctl", f"cp -a /etc/slurm/jwt.key /etc/slurm/slurm.jwks {folder}/etc/slurm/")
    words = f"hostname sm02; SLURMSTACK_STAGED={folder} sh {folder}/reader.sh 2>&1"
    done = lab.ssh("ctl", f"unshare --uts sh -c '{words}'", check=False)
    return done.returncode, done.stdout


def test_the_reader_of_slurm_conf_takes_them(place: RunningLab) -> None:
    (reader,) = (entry.block for entry in entries() if entry.name == "slurm-conf")
    assert read(place, PLACE, reader) == (0, "")
    gres = f"{PLACE}/etc/slurm/gres.conf"
    place.ssh("ctl", f"echo 'NodeName=cn01 Name=gpu Type=h100 Count=many' >>{gres}")
    ended, said = read(place, PLACE, reader)
    place.ssh("ctl", f"sed -i '$d' {gres}")
    assert ended == 1
    assert "Invalid GRES record for gpu, invalid count many" in said


def test_it_takes_gres_conf_as_people_write_it(place: RunningLab) -> None:
    """Each of the files in public repositories is a class of nodes here, all in one cluster."""
    classes = [
        {"name": f"c{number}", "hosts": f"cn{number:02}", "Gres": entries_of(lines)}
        for number, (_, lines) in enumerate(WRITTEN, 1)
    ]
    last = len(classes)
    settings = parse(
        {
            **bare(),
            "hosts": {"sm02": "10.73.0.10", f"cn[01-{last}]": f"10.73.1.[1-{last}]"},
            "roles": {"controller": "sm02"},
            "nodes": classes,
            "partitions": {"main": {"Nodes": "ALL", "Default": True}},
        }
    )
    node = Hardware(
        CPUs=256, SocketsPerBoard=2, CoresPerSocket=128, ThreadsPerCore=1, RealMemory=1000
    )
    bundle = controller_bundle("sm02", settings, dict.fromkeys(settings.compute, node))
    folder = f"{PLACE}/written"
    for part in bundle.parts:
        if isinstance(part, File) and part.path.startswith("/etc/slurm/"):
            assert isinstance(part.content, str)
            put(place, f"{folder}{part.path}", part.content)
    (reader,) = (
        part.script
        for part in bundle.parts
        if isinstance(part, Validate) and part.name == "slurm-conf"
    )
    assert read(place, folder, reader) == (0, "")


def relevant(log: str) -> str:
    """Without what follows from the absence of slurmdbd and of a mail program here, and from what
    plugstack.conf includes, which each node has for itself."""
    known = re.compile(r"can only be used with SlurmDBD|MailProg|glob parsing")
    return "\n".join(line for line in log.splitlines() if not known.search(line))
