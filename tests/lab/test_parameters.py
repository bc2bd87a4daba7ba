"""The whole of Slurm's parameter table against the daemons that the lab has.

Each name, each word of a closed list and each plugin stands in a file of its own, which the real
parser reads: what the table holds valid for the release is taken, everything else is refused.
"""

from __future__ import annotations

import base64
import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pytest

from settings.parameters import (
    NODE,
    PARTITION,
    SLURM_CONF,
    SLURMDBD_CONF,
    Parameter,
    Release,
    plugins,
    release_of,
    table,
)
from settings.slurm_value import example
from tests.lab.conftest import RunningLab

pytestmark = pytest.mark.lab

PLACE = "/run/parameters"
#: What else slurm.conf has to have for a parameter or its value to be taken.
WITH = {
    "MCSParameters": "MCSPlugin=mcs/user",
    "MCSPlugin=mcs/group": "MCSParameters=a|b",
    "SlurmSchedLogLevel": "SlurmSchedLogFile=/var/log/sched",
    "PreemptType": "PreemptMode=REQUEUE",
    "PreemptType=preempt/none": "PreemptMode=OFF",
    "PreemptMode=CANCEL": "PreemptType=preempt/qos",
    "PreemptMode=REQUEUE": "PreemptType=preempt/qos",
    "PreemptMode=WITHIN": "PreemptType=preempt/qos",
    "JobContainerType": "PrologFlags=Contain",
    "TaskPluginParam=OOMKillStep": "TaskPlugin=task/cgroup",
}
#: The parser takes these together with others only, or they need what this place has not.
NOT_ALONE = {"PreemptMode=SUSPEND", "PreemptMode=WITHIN", "SlurmUser", "PluginDir"}
#: 24.11 reads these under their old names in silence; its manual has them no more.
STILL_READ = {
    "AcctGatherInfinibandType",
    "CryptoType",
    "KeepAliveTime",
    "LaunchType",
    "RoutePlugin",
}
#: Refused although the words of a list, and bounds, are not the parser's but those of its users.
WRONG = {
    "bool": "perhaps", "int16": "70000", "int32": "-1", "int64": "x", "float": "x",
    "level": "loud", "ports": "x", "choice": "nonsense",
}  # fmt: skip


@pytest.fixture(scope="module")
def release(lab: RunningLab) -> Release:
    return release_of(lab.ssh("ctl", "dpkg-query -Wf '${Version}' slurmctld").stdout)


def slurm_conf(extra: str = "", node: str = "", partition: str = "") -> str:
    return (
        f"ClusterName=x\nSlurmctldHost=localhost\nSlurmUser=root\n{extra}\n"
        f"NodeName=n1 {node}\nPartitionName=p1 Nodes=n1 {partition}\n"
    )


def read_each(
    lab: RunningLab, files: Mapping[str, str], command: str, node: str = "ctl"
) -> dict[str, str]:
    """Title → what the reader says of a file, nothing where it takes it. `command` reads $FILE."""
    packed = io.BytesIO()
    titles = dict(enumerate(files))
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for number, title in titles.items():
            content = files[title].encode()
            entry = tarfile.TarInfo(f"{number:04}/file.conf")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    text = base64.b64encode(packed.getvalue()).decode()
    script = (
        f"rm -rf {PLACE} && mkdir {PLACE} && cd {PLACE}\n"
        f"base64 -d <<'END' | tar -xz\n{text}\nEND\n"
        f'for FILE in */file.conf; do FILE={PLACE}/$FILE; echo "== $FILE"\n{command}\ndone 2>&1\n'
        f"rm -rf {PLACE}\n"
    )
    said: dict[str, str] = {}
    for part in lab.send(node, "sh", script.encode(), timeout=300).decode().split("== ")[1:]:
        path, _, words = part.partition("\n")
        wrong = [it for it in words.splitlines() if re.search(r"error|fatal|warning", it)]
        said[titles[int(path.split("/")[-2])]] = "\n".join(wrong)
    assert len(said) == len(files)
    return said


CLIENT = "SLURM_CONF=$FILE scontrol -V"
#: slurmctld ends at its state folder, after it has read everything; what is defunct it says.
DAEMON = (
    "sed -i '1i StateSaveLocation=/proc/none' $FILE; timeout 20 slurmctld -D -f $FILE 2>&1 | "
    "grep -v '/proc/none'"
)


def one_each(release: Release, valid: bool) -> Iterator[tuple[str, str]]:
    for it in table(SLURM_CONF).values():
        if it.in_release(release) is valid and it.name not in NOT_ALONE | {"ClusterName"}:
            yield it.name, slurm_conf(f"{it.name}={example(it)}\n{WITH.get(it.name, '')}")
    for it in table(NODE).values():
        if it.in_release(release) is valid:
            yield f"NodeName {it.name}", slurm_conf(node=f"{it.name}={example(it)}")
    for it in table(PARTITION).values():
        if it.in_release(release) is valid and it.name != "Nodes":
            yield f"PartitionName {it.name}", slurm_conf(partition=f"{it.name}={example(it)}")


def words(release: Release) -> Iterator[tuple[str, str]]:
    for it in table(SLURM_CONF).values():
        names: list[str] = []
        if it.kind in ("choice", "flags"):
            names = [word for word in it.of if it.words_since.get(word, release) <= release]
        elif it.kind in ("plugin", "plugins"):
            names = [
                f"{it.of[0]}/{name}"
                for name, (first, last) in plugins(it.of[0]).items()
                if (first or release) <= release <= (last or release)
            ]
        for name in names if it.in_release(release) else ():
            line = f"{it.name}={name}"
            if line not in NOT_ALONE:
                yield line, slurm_conf(f"{line}\n{WITH.get(line, WITH.get(it.name, ''))}")


def test_every_valid_name_and_word_is_taken(lab: RunningLab, release: Release) -> None:
    files = dict(one_each(release, True)) | dict(words(release))
    # A controller by its old parameters, beside the one that each of these files has.
    old = {"ControlMachine", "ControlAddr", "BackupController", "BackupAddr"}
    said = read_each(lab, {title: it for title, it in files.items() if title not in old}, CLIENT)
    assert "\n".join(f"{title}: {it}" for title, it in said.items() if it) == ""
    assert len(said) > 500


def test_every_other_name_is_refused_or_said_to_be_defunct(
    lab: RunningLab, release: Release
) -> None:
    files = dict(one_each(release, False))
    files |= {it: slurm_conf(f"{it}=1") for it in ("FooBar", "MessageTimeouts", "Zz")}
    said = read_each(lab, files, DAEMON)
    silent = {title for title, it in said.items() if title.split()[-1] not in it}
    assert silent <= STILL_READ


def test_wrong_values_are_refused(lab: RunningLab, release: Release) -> None:
    files = {
        it.name: slurm_conf(f"{it.name}={WRONG[it.kind]}")
        for it in table(SLURM_CONF).values()
        if it.in_release(release) and it.kind in WRONG and it.max is None
    }
    # Its parser takes 32 bits; a port has 16.
    said = read_each(lab, {name: it for name, it in files.items() if name != "SlurmdPort"}, CLIENT)
    assert [name for name, it in said.items() if not it] == []


def slurmdbd_conf(it: Parameter) -> str:
    # Without StorageType it ends once it has read the file.
    base = {"AuthType": "auth/munge", "DbdHost": "localhost", "SlurmUser": "root"}
    return "".join(f"{name}={value}\n" for name, value in (base | {it.name: example(it)}).items())


@pytest.mark.parametrize("valid", [True, False])
def test_slurmdbd_conf(lab: RunningLab, release: Release, valid: bool) -> None:
    files = {
        it.name: slurmdbd_conf(it)
        for it in table(SLURMDBD_CONF).values()
        if it.in_release(release) is valid
    }
    files |= {} if valid else {"FooBar": "FooBar=1\n"}
    folder = "$(dirname $FILE)"
    command = (
        f"mv $FILE {folder}/slurmdbd.conf; chmod 600 {folder}/slurmdbd.conf; "
        f"SLURM_CONF={folder}/slurm.conf timeout 5 slurmdbd -D 2>&1 | "
        "grep -E 'unrecognized key|Invalid|invalid|is not a valid'"
    )
    said = read_each(lab, files, f"{command} || true")
    # Nothing of slurmdbd's defunct names is refused: the newer spelling only wins over them.
    older = {"JobPurge", "StepPurge"}
    refused = {name for name, it in said.items() if "unrecognized key" in it}
    assert refused == (set() if valid else {*files} - older)


#: Reads cgroup.conf first, and ends at its spool folder.
SLURMD = (
    "D=$(dirname $FILE); mv $FILE $D/cgroup.conf; "
    "printf 'ClusterName=x\\nSlurmctldHost=localhost\\nSlurmdSpoolDir=/proc/none\\n"
    "NodeName='$(hostname -s)'\\n' >$D/slurm.conf; "
    "timeout 5 slurmd -D -f $D/slurm.conf 2>&1 | "
    "grep -E 'cgroup.conf|unrecognized key|defunct|obsolete|removed'"
)


def test_cgroup_conf(lab: RunningLab, release: Release) -> None:
    every = table("cgroup.conf").values()
    valid = "".join(f"{it.name}={example(it)}\n" for it in every if it.in_release(release))
    gone = [it for it in every if not it.in_release(release)]
    files = {it.name: f"{it.name}={example(it)}\n" for it in gone} | {"FooBar": "FooBar=1\n"}
    said = read_each(lab, files | {"valid": valid}, f"{{ {SLURMD}; }} || true", node="cn01")
    assert {name for name, it in said.items() if it} == {*files}


@dataclass(frozen=True)
class Reader:
    """How a daemon of its own comes to read a file: who, by which slurm.conf, in which line."""

    file: str
    daemon: str
    conf: str
    line: str = "{}"
    names: tuple[str, ...] = ()

    @property
    def node(self) -> str:
        return "ctl" if self.daemon == "slurmctld" else "cn01"


#: acct_gather.conf takes those names whose plugin is loaded, mpi.conf and oci.conf any.
READERS = [
    Reader("gres.conf", "slurmd", "GresTypes=gpu", "Name=gpu {}"),
    Reader("job_container.conf", "slurmd",
           "JobContainerType=job_container/tmpfs\nPrologFlags=Contain", "BasePath=/run/x {}"),
    Reader("helpers.conf", "slurmctld", "NodeFeaturesPlugins=node_features/helpers", "Feature=f {}",
           ("Helper", "Flags")),
    Reader("helpers.conf", "slurmctld", "NodeFeaturesPlugins=node_features/helpers", "{}",
           ("AllowUserBoot", "BootTime", "ExecTime", "MutuallyExclusive")),
    Reader("topology.conf", "slurmctld", "TopologyPlugin=topology/tree", "SwitchName=s1 {}",
           ("Nodes", "Switches", "LinkSpeed")),
    Reader("topology.conf", "slurmctld", "TopologyPlugin=topology/block", "BlockName=b1 {}",
           ("Nodes",)),
    Reader("topology.conf", "slurmctld", "TopologyPlugin=topology/block", "{}", ("BlockSizes",)),
]  # fmt: skip
#: It has a network of its own, whose one address is not loopback, so that names resolve; it reads
#: the file before it would reach anyone.
READ = r"""
D=$(dirname $FILE); mv $FILE $D/%(file)s; mkdir $D/state $D/spool
printf '%%s\n' ClusterName=x "SlurmctldHost=one(192.0.2.1)" SlurmUser=root \
  StateSaveLocation=$D/state SlurmdSpoolDir=$D/spool \
  ProctrackType=proctrack/linuxproc TaskPlugin=task/none \
  '%(conf)s' 'NodeName=one NodeAddr=192.0.2.1 CPUs=1' 'PartitionName=p Nodes=one' >$D/slurm.conf
echo CgroupPlugin=disabled >$D/cgroup.conf
unshare --net --uts sh -c "ip address add 192.0.2.1/32 dev lo; ip link set lo up; hostname one
  timeout 4 %(daemon)s -D -c -f $D/slurm.conf" 2>&1 | grep 'unrecognized key' || true
"""


def titled(it: Reader) -> str:
    return f"{it.file} {it.line}"


@pytest.mark.parametrize("reader", READERS, ids=titled)
def test_the_smaller_files(lab: RunningLab, release: Release, reader: Reader) -> None:
    every = table(reader.file).values()
    lines = [
        f"{it.name}={example(it)}"
        for it in every
        if it.in_release(release)
        and it.name in (reader.names or {it.name for it in every})
        # What begins a line does not stand within one.
        and not (" " in reader.line and it.name in {"Name", "NodeName", "BasePath", "Feature"})
    ]
    files = {
        "valid": reader.line.format(" ".join(lines) if " " in reader.line else "\n".join(lines))
    }
    files |= {it.name: f"{it.name}=1" for it in every if not it.in_release(release)}
    files["FooBar"] = "FooBar=1"
    command = READ % {"file": reader.file, "conf": reader.conf, "daemon": reader.daemon}
    said = read_each(lab, {name: f"{it}\n" for name, it in files.items()}, command, reader.node)
    assert {name for name, it in said.items() if it} == {*files} - {"valid"}, said["valid"]
