"""Production's files, read on real nodes by the programs that they are for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest

from tests.lab.conftest import RunningLab
from tests.prod import files, on_node, text

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


def relevant(log: str) -> str:
    """Without what follows from the absence of slurmdbd and of a mail program here, and from what
    plugstack.conf includes, which each node has for itself."""
    known = re.compile(r"can only be used with SlurmDBD|MailProg|glob parsing")
    return "\n".join(line for line in log.splitlines() if not known.search(line))
