"""What slurmctld runs by, against the slurm.conf on its host; and what slurmdbd holds, against
what is declared. Only asks.

    cluster_drift FILE [RECONCILE]   the slurm.conf, and the program that plans for slurmdbd

A line for each thing, in the applier's form: `differs KIND NAME`, what was found and the command
that puts it right, parted by tabs; or `failed WHY`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from on_node.slurm_state import (
    Expand,
    command,
    expand,
    fields,
    gres_of_node,
    lines_of,
    seconds,
)

Difference = dict[str, str]

RECONFIGURE = "scontrol reconfigure"
#: What `scontrol setdebug`, `setdebugflags` and `schedloglevel` change in a running slurmctld.
_SET_WHILE_RUNNING = {"slurmctlddebug", "debugflags", "slurmschedloglevel"}
#: Slurm adds to these what follows from the values that a file names.
_ADDED_TO = {"accountingstoragetres", "accountingstorageenforce", "prologflags", "priorityflags"}
#: slurm.conf(5): levels of SlurmctldDebug by number.
_LEVELS = (
    "quiet", "fatal", "error", "info", "verbose", "debug", "debug2", "debug3", "debug4", "debug5",
)  # fmt: skip
_WORDS = {
    "yes": "1", "true": "1", "no": "0", "false": "0", "infinite": "unlimited", "-1": "unlimited",
    "(null)": "", "none": "", "n/a": "", "(null type)": "",
}  # fmt: skip
_UNITS = re.compile(r"(-?\d+) (?:sec|min|usec|percent|nodes/min)")
_USER = re.compile(r"([a-z_][a-z0-9_.-]*)\(\d+\)")
#: Words of a NodeName line → those of `scontrol show node`.
_OF_NODE = {
    "NodeAddr": "nodeaddr", "CPUs": "cputot", "Boards": "boards", "Sockets": "sockets",
    "CoresPerSocket": "corespersocket", "ThreadsPerCore": "threadspercore",
    "RealMemory": "realmemory", "MemSpecLimit": "memspeclimit", "Features": "availablefeatures",
    "Weight": "weight", "Gres": "gres",
}  # fmt: skip
#: Those that `scontrol update` sets, and how it calls them.
_UPDATED = {
    "Features": ("AvailableFeatures", "ActiveFeatures"), "Weight": ("Weight",), "Gres": ("Gres",),
}  # fmt: skip
#: Files beside it that slurmctld does not read, and itself, which has a hash.
_OF_OTHERS = {"slurmdbd.conf", "slurm.conf"}


def same(name: str, wanted: str, running: str) -> bool:
    """Whether two spellings of a parameter's value say the same."""
    if any(mark in wanted + running for mark in ":-") and not (
        seconds(wanted) == seconds(running) == float("inf")
    ):
        return seconds(wanted) == seconds(running)
    here, there = _tokens(name, wanted), _tokens(name, running)
    return here <= there if name in _ADDED_TO else here == there


def _tokens(name: str, value: str) -> frozenset[str]:
    text = value.strip().lower()
    if name in _SET_WHILE_RUNNING and text.isdigit() and int(text) < len(_LEVELS):
        text = _LEVELS[int(text)]
    match = _UNITS.fullmatch(text) or _USER.fullmatch(text)
    tokens = [match[1]] if match else text.split(",")
    return frozenset(_WORDS.get(token, token) for token in tokens) - {""}


def of_parameters(file: str, config: str) -> Iterator[Difference]:
    """Parameters that the file sets and slurmctld runs without.

    Where slurmctld read this very file (HASH_VAL of `scontrol show config`), only those can differ
    that are changed while it runs.
    """
    values: dict[str, str] = {}
    for line in config.splitlines():
        name, separator, value = line.partition("=")
        if separator:
            values.setdefault(name.strip().lower(), value.strip())
    whole = values.get("hash_val", "").startswith("Match")
    if not whole:
        found = "slurmctld runs with another version of it"
        yield _differs("parameter", "slurm.conf", found, RECONFIGURE)
    several: Counter[str] = Counter()
    for line in lines_of(file):
        name, separator, wanted = (part.strip() for part in line.partition("="))
        key = name.lower()
        if not separator or key in ("nodename", "partitionname"):
            continue
        # Prolog and Epilog are shown by number, in the order of their lines.
        running = values.get(key, values.get(f"{key}[{several[key]}]", ""))
        several[key] += 1
        if not running or (whole and key not in _SET_WHILE_RUNNING):
            continue
        if not same(key, wanted, running):
            yield _differs("parameter", name, f"{running}, not {wanted}", RECONFIGURE)


def of_files(folder: Path, booted: str) -> Iterator[Difference]:
    """Files that changed after slurmctld, which starts anew to read them, last did so."""
    try:
        start = time.mktime(time.strptime(booted, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return
    for path in sorted(folder.glob("*.conf")):
        if path.name not in _OF_OTHERS and int(path.stat().st_mtime) > start:
            found = "changed after slurmctld read it"
            yield _differs("parameter", path.name, found, RECONFIGURE)


def of_nodes(file: str, running: str, expand: Expand) -> Iterator[Difference]:
    """Nodes whose line is not what slurmctld runs by."""
    known = _by_name(running, "nodename")
    for values in _lines(file, "NodeName"):
        wanted = dict(values)
        if "SocketsPerBoard" in wanted:
            boards = int(wanted.get("Boards", "1"))
            wanted["Sockets"] = str(boards * int(wanted.pop("SocketsPerBoard")))
        for name in expand(values["NodeName"]):
            if name not in known:
                yield _differs("node", name, "slurmctld does not know it", RECONFIGURE)
                continue
            for key, shown in _OF_NODE.items():
                if key in wanted:
                    yield from _of_node(name, key, wanted[key], known[name].get(shown, ""))


def _of_node(name: str, key: str, wanted: str, value: str) -> Iterator[Difference]:
    if key == "Gres":
        if gres_of_node(wanted) == gres_of_node(value):
            return
    elif _tokens(key, wanted) == _tokens(key, value):
        return
    words = [f"{word}={wanted}" for word in _UPDATED.get(key, ())]
    mend = " ".join(("scontrol update", f"NodeName={name}", *words)) if words else RECONFIGURE
    yield _differs("node", name, f"{key} {value or 'nothing'}, not {wanted}", mend)


def of_partitions(file: str, running: str, expand: Expand) -> Iterator[Difference]:
    """Partitions whose line is not what slurmctld runs by. Their state is people's to decide."""
    known = _by_name(running, "partitionname")
    every = {name for line in _lines(file, "NodeName") for name in expand(line["NodeName"])}
    for values in _lines(file, "PartitionName"):
        name = values["PartitionName"]
        if name not in known:
            yield _differs("partition", name, "slurmctld does not know it", RECONFIGURE)
            continue
        for word, wanted in values.items():
            key = word.lower()
            value = known[name].get(key)
            if value is None or key in ("partitionname", "state"):
                continue
            if key == "nodes":
                nodes = every if wanted.upper() == "ALL" else set(expand(wanted))
                if nodes == set(expand(value) if _tokens(key, value) else ()):
                    continue
            elif same(key, wanted, value):
                continue
            mend = f"scontrol update PartitionName={name} {word}={wanted}"
            yield _differs("partition", name, f"{word} {value or 'nothing'}, not {wanted}", mend)


def of_accounting(program: str) -> Iterator[Difference]:
    """Objects of slurmdbd that are not as they are declared, by the program that makes them so."""
    done = subprocess.run(
        (program, "--check"), capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{program}: {(done.stderr or done.stdout).strip()}")
    for line in done.stdout.splitlines():
        step, separator, mend = line.partition(": ")
        verb, _, name = step.partition(" ")
        if separator:
            found = {"make": "missing", "remove": "is declared no more"}.get(
                verb, "is not as declared"
            )
            yield _differs("accounting", name, found, mend)


def _by_name(text: str, key: str) -> dict[str, Mapping[str, str]]:
    found: dict[str, Mapping[str, str]] = {}
    for line in text.splitlines():
        values = {name.lower(): value for name, value in fields(line).items()}
        if key in values:
            found[values[key]] = values
    return found


def _lines(file: str, key: str) -> Iterator[Mapping[str, str]]:
    """Lines as slurmstack writes them, each word in Slurm's own spelling."""
    return (values for line in lines_of(file) if key in (values := fields(line)))


def _differs(kind: str, name: str, found: str, command: str) -> Difference:
    return {"kind": kind, "name": name, "found": found, "command": command}


def main(words: list[str]) -> int:
    try:
        for one in differences(*words):
            print("differs", one["kind"], "\t".join((one["name"], one["found"], one["command"])))
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        print("failed", " ".join(str(error).split()))
        return 1
    return 0


def differences(conf: str, program: str = "") -> list[Difference]:
    """All that differs.

    Args:
        conf: the path of slurm.conf.
        program: the path of the one that plans for slurmdbd, where there is accounting.

    Raises:
        RuntimeError: slurmctld or slurmdbd does not answer.
    """
    path = Path(conf)
    file = path.read_text(encoding="utf-8", errors="replace")
    config = command("scontrol", "show", "config")
    booted = re.search(r"^BOOT_TIME *= *(\S+)", config, re.MULTILINE)
    found = [
        *of_parameters(file, config),
        *of_files(path.parent, booted[1] if booted else ""),
        *of_nodes(file, command("scontrol", "--oneliner", "show", "node"), expand),
        *of_partitions(file, command("scontrol", "--oneliner", "show", "partition"), expand),
    ]
    if program:
        found += of_accounting(program)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
