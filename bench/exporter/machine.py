"""What is run on the machine (root): 64 slurmd beside one slurmctld, 10,000 jobs, and what each way
to ask costs. Standard library only; prints JSON.

    machine.py SLURM_EXPORTER.PY NODES JOBS ROUNDS
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

API = "/slurm/v0.0.41"
SOCKET = "/run/bench-rest/rest.sock"
USER = "bench"
_CONF = """\
ClusterName=bench
SlurmctldHost={host}
SlurmUser=slurm
AuthType=auth/munge
StateSaveLocation=/var/lib/bench/state
SlurmctldLogFile=/var/log/slurm/slurmctld.log
SlurmctldPidFile=/run/bench-slurmctld.pid
SlurmdSpoolDir=/var/lib/bench/%n
SlurmdLogFile=/var/log/slurm/%n.log
SlurmdPidFile=/run/bench-%n.pid
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MaxJobCount=20000
ReturnToService=2
MessageTimeout=60
NodeName=DEFAULT CPUs=112 RealMemory=2000000 State=UNKNOWN
NodeName=dgx[001-{nodes:03}] NodeHostname={host} Port=[7001-{last}]
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"{what} did not come about within {seconds:.0f} s")
        time.sleep(1)


class Rest(http.client.HTTPConnection):
    """slurmrestd on its socket, as the user who is let in there."""

    def __init__(self) -> None:
        super().__init__("localhost", timeout=120)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(SOCKET)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        text = None if body is None else json.dumps(body)
        self.request(method, API + path, text, {"Content-Type": "application/json"})
        answer = self.getresponse()
        found = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{method} {path}: {answer.status} {found[:500]!r}")
        return json.loads(found)


def begin(nodes: int) -> None:
    """Daemons, and nodes that are idle."""
    host = socket.gethostname()
    for folder in ("/var/lib/bench/state", "/var/log/slurm", "/etc/slurm", "/run/bench-rest"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    run("chown", "slurm", "/var/lib/bench/state", "/var/log/slurm")
    run("useradd", "--create-home", USER)
    run("chown", USER, "/run/bench-rest")
    conf = _CONF.format(host=host, nodes=nodes, last=7000 + nodes)
    Path("/etc/slurm/slurm.conf").write_text(conf)
    Path("/etc/slurm/cgroup.conf").write_text("CgroupPlugin=disabled\n")
    run("systemctl", "start", "munge")
    subprocess.Popen(["slurmctld", "-D"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for number in range(1, nodes + 1):
        Path(f"/var/lib/bench/dgx{number:03}").mkdir(exist_ok=True)
        run("slurmd", "-N", f"dgx{number:03}")
    until(lambda: run("sinfo", "-h", "-t", "idle", "-o", "%D").strip() == str(nodes), 180, "idle")
    words = ["setpriv", "--reuid", USER, "--regid", USER, "--clear-groups"]
    plugins = ["-a", "rest_auth/local", "-s", "slurmctld", f"unix:{SOCKET}"]
    subprocess.Popen(
        [*words, "slurmrestd", *plugins], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until(Path(SOCKET).exists, 30, "slurmrestd's socket")


def submit(jobs: int, nodes: int) -> None:
    """Each job a record of its own; so many as there are nodes run."""
    child = os.fork()
    if child == 0:
        user = int(run("id", "-u", USER))
        os.setgid(user)
        os.setuid(user)
        rest = Rest()
        job = {
            "name": "train", "current_working_directory": "/tmp", "cpus_per_task": 112,
            "environment": ["PATH=/bin:/usr/bin"],
        }  # fmt: skip
        for _ in range(jobs):
            rest.ask("POST", "/job/submit", {"script": "#!/bin/sh\nsleep 86400\n", "job": job})
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit("jobs could not be submitted")
    running = ("squeue", "-h", "-t", "R", "-o", "%i")
    until(lambda: len(run(*running).split()) == nodes, 300, "running jobs")


def slurmctld_seconds() -> float:
    """Processor seconds of slurmctld so far."""
    process = Path("/run/bench-slurmctld.pid").read_text().strip()
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rpcs() -> dict[str, tuple[int, float]]:
    """RPC → how many so far, and the seconds that they took slurmctld."""
    found = json.loads(run("sdiag", "--json"))["statistics"]["rpcs_by_message_type"]
    return {it["message_type"]: (int(it["count"]), it["total_time"] / 1e6) for it in found}


def own_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(it.ru_utime + it.ru_stime for it in used)


def rest_seconds() -> float:
    """Processor seconds of slurmrestd so far."""
    process = run("pgrep", "-o", "slurmrestd").strip()
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(look: Callable[[], None]) -> dict[str, Any]:
    """What one look costs whom."""
    before, own, served, known = slurmctld_seconds(), own_seconds(), rest_seconds(), rpcs()
    began = time.monotonic()
    look()
    took = time.monotonic() - began
    told = {
        name: (count - known.get(name, (0, 0.0))[0], spent - known.get(name, (0, 0.0))[1])
        for name, (count, spent) in rpcs().items()
    }
    # These are of the scheduler and of jobs and nodes, which go on meanwhile.
    asked = {name: it for name, it in told.items() if it[0] > 0 and "INFO" in name}
    return {
        "seconds": took,
        "asker": own_seconds() - own + rest_seconds() - served,
        "slurmctld": slurmctld_seconds() - before,
        "rpcs": {name: it[0] for name, it in asked.items()},
        "rpc_seconds": sum(it[1] for it in asked.values()),
    }


def main(exporter: str, nodes: int, jobs: int, rounds: int) -> None:
    begin(nodes)
    submit(jobs, nodes)
    spec = importlib.util.spec_from_file_location("slurm_exporter", exporter)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["slurm_exporter"] = module
    spec.loader.exec_module(module)
    events = module.Events()

    def as_it_is() -> None:
        module.look(events, False)

    def by_json() -> None:
        for words in (
            ("squeue", "--all", "--array", "--states=all"), ("scontrol", "show", "node"),
            ("sdiag",), ("scontrol", "show", "license"), ("scontrol", "show", "reservation"),
        ):  # fmt: skip
            json.loads(run(*words, "--json"))

    def by_rest() -> None:
        # The socket lets its own user in, and root.
        rest = Rest()
        for path in ("/jobs", "/nodes", "/diag", "/licenses", "/reservations"):
            rest.ask("GET", path)

    ways = {"as it is": as_it_is, "--json of all": by_json, "slurmrestd": by_rest}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, look in ways.items():
            if look is by_rest:
                found[name].append(as_user(look))
            else:
                found[name].append(measured(look))
    print(json.dumps({"nodes": nodes, "jobs": len(run("squeue", "-h").splitlines()), **found}))


def as_user(look: Callable[[], None]) -> dict[str, Any]:
    """The same by the user whom slurmrestd lets in."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        user = int(run("id", "-u", USER))
        os.setgid(user)
        os.setuid(user)
        os.write(writer, json.dumps(measured(look)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    found: dict[str, Any] = json.loads(text)
    return found


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
