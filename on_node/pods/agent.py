"""A node's answer to batch steps: it makes a job's pods, with the bridge's credential.

systemd starts one for each connection, as root; what is asked comes as one line of JSON, and one
line answers. Whose job it is, Slurm says and not the asker: the asker's process is below the
slurmstepd of a batch step, and slurmctld tells what that job has been given.

    {"ask": "start", "text": FILE}    → {"namespace", "pods", "token"}
    {"ask": "token"}                  → {"token"}, or {"gone": WHY}
    otherwise                         → {"refused": WHY} or {"later": WHY}
"""

from __future__ import annotations

import calendar
import contextlib
import json
import os
import pwd
import re
import shlex
import socket
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from on_node.kubernetes import rules
from on_node.kubernetes.job_file import MAX_SIZE, read
from on_node.kubernetes.places import RUNNER
from on_node.pods import manifests
from on_node.pods.allocation import Allocation, Unknown, allocation
from on_node.pods.api import Api, Away, Refused
from on_node.pods.manifests import Wanted
from on_node.pods.places import RECORDS
from on_node.pods.site import Site, site

#: Seconds that a token holds; a batch step asks for another in time.
TOKEN = 3600
#: Seconds after a pod's time to end, for its node to say that it has ended.
_OVERDUE = 20
_STEP = re.compile(r"slurmstepd: \[(\d+)\.batch\]")
#: What Kubernetes says while something that it makes itself is not there yet.
_SOON = re.compile(r"status unknown for quota|error looking up service account|being terminated")
#: Why it refuses what it may allow before the job's time to start is over: another pod ends; an API
#: that has just started does not know everybody yet; somebody gives the bridge its right back.
_PASSING = re.compile(r"exceeded quota|answers 401|is forbidden: User \"")


class Never(Exception):
    """Asking again is of no use; why."""


def job_of(process: int, folder: Path = Path("/proc")) -> int:
    """The job in whose batch step a process runs.

    Raises:
        Never: it runs in none.
    """
    while process > 1:
        of = folder / str(process)
        try:
            command = (of / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            # Anybody may call a process so; but nobody else's is root's, and this program.
            step = _STEP.match(command) if of.stat().st_uid == 0 else None
            # Debian's is slurmstepd-wlm; after an upgrade it is "slurmstepd (deleted)".
            if step and (of / "exe").readlink().name.startswith("slurmstepd"):
                return int(step[1])
            process = int((of / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    raise Never("this is no batch step of a job: submit the file (slurmstack-job submit FILE)")


def wanted(text: str, told: Site) -> Wanted:
    """What a job file asks of a pod.

    Raises:
        Never: all that is against it.
    """
    job, mistakes = read(text.encode())
    first = text.partition("\n")[0].removeprefix("#!").split(maxsplit=1)
    interpreter = first[1] if len(first) == 2 and first[0] == RUNNER else ""
    against = [*mistakes, *rules.allowed(job, told.rules)]
    if against:
        raise Never("; ".join(str(it) for it in sorted(against)))
    if not interpreter:
        raise Never(f"line 1: expected #!{RUNNER} and the interpreter in the pod")
    try:
        command = tuple(shlex.split(interpreter))
    except ValueError as error:
        raise Never(f"line 1: the interpreter in the pod: {error}") from None
    if job.image is None:
        raise Never("K8S_IMAGE is missing: no image, no pod")
    values = {name: value for name, (value, _) in job.kubernetes.items()}
    return Wanted(values["IMAGE"], command, text, values.get("WORKDIR"), values.get("SCRIPT"))


def start(api: Api, told: Site, given: Allocation, file: Wanted) -> dict[str, Any]:
    """See that the job's pods are there; whatever of it is there already stays.

    Raises:
        Away: the API does not answer.
        Refused: it does not allow it.
    """
    name = manifests.namespace(told, given.uid)
    inside = f"/api/v1/namespaces/{name}"
    for path, body in manifests.for_user(told, given):
        api.apply(path, body)
    groups = os.getgrouplist(given.user, given.gid)
    made = manifests.pods(told, given, file, groups)
    first = _pod(api, inside, made[0], told.grace)
    owner = {
        "apiVersion": "v1", "kind": "Pod", "name": first["metadata"]["name"],
        "uid": first["metadata"]["uid"],
    }  # fmt: skip
    for path, body in manifests.for_job(given, file, first["metadata"]["uid"]):
        group, _, kind = path.partition("|")
        _made(api, f"{group}/namespaces/{name}/{kind}", body)
    for body in made[1:]:
        body["metadata"]["ownerReferences"] = [owner]
        _pod(api, inside, body, told.grace)
    return {
        "namespace": name,
        "pods": [it["metadata"]["name"] for it in made],
        "nodes": [it.node for it in given.shares],
        "summary": {
            "job": str(given.job),
            "name": given.name,
            "user": given.user,
            "account": given.account,
            "QOS": given.qos,
            "partition": given.partition,
            "started before": str(given.restarts),
            "image": file.image,
            "pods": ", ".join(f"{name}/{it['metadata']['name']}" for it in made),
            "given": "; ".join(
                f"{it.node}: {it.cpus} CPUs, {it.memory} MiB, GPUs {list(it.gpus) or 'none'}"
                for it in given.shares
            ),
        },
        "token": token(api, told, given),
    }


def _pod(api: Api, inside: str, body: Mapping[str, Any], grace: int) -> dict[str, Any]:
    """The pod; one of an earlier run of the job has to go first."""
    of = body["metadata"]
    try:
        there = api.get(f"{inside}/pods/{of['name']}")
    except Refused as error:
        if error.status != 404:
            raise
        return _created(api, f"{inside}/pods", body)
    if there["metadata"]["labels"].get("restart") != of["labels"]["restart"]:
        # With its time to end, so that nothing runs twice; a node that does not say for long that
        # it has ended has died, or Slurm takes it for dead, too.
        now = 0 if overdue(there["metadata"], time.time()) else grace
        api.delete(f"{inside}/pods/{of['name']}", now, there["metadata"]["uid"])
        raise Away(f"pod {of['name']} of the job's earlier run is being terminated")
    return there


def overdue(of: Mapping[str, Any], now: float) -> bool:
    """Whether a pod is there still long after its time to end was over."""
    ends = of.get("deletionTimestamp")
    if ends is None:
        return False
    return calendar.timegm(time.strptime(ends, "%Y-%m-%dT%H:%M:%SZ")) + _OVERDUE < now


def _made(api: Api, path: str, body: Mapping[str, Any]) -> None:
    """An object that goes with its owner; one of an earlier owner is on its way."""
    try:
        _created(api, path, body)
    except Refused as error:
        if error.status != 409:
            raise
        of = api.get(f"{path}/{body['metadata']['name']}")["metadata"]
        mine = [it["uid"] for it in body["metadata"]["ownerReferences"]]
        if [it["uid"] for it in of.get("ownerReferences", ())] != mine:
            api.delete(f"{path}/{of['name']}", 0, of["uid"])
            raise Away(f"{of['name']} of the job's earlier run is being terminated") from None


def _created(api: Api, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return api.create(path, body)
    except Refused as error:
        if _SOON.search(str(error)):
            raise Away(str(error)) from None
        raise


def token(api: Api, told: Site, given: Allocation) -> str:
    """By which the job follows its pods and ends them: no other, and nothing else."""
    name = manifests.pod_name(given.job, 0)
    path = f"/api/v1/namespaces/{manifests.namespace(told, given.uid)}/serviceaccounts/{name}/token"
    body = {
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN},
    }  # fmt: skip
    return str(api.create(path, body)["status"]["token"])


def answer(asked: Mapping[str, Any], process: int, uid: int) -> dict[str, Any]:
    """What is said to one that asks.

    Args:
        asked: the line.
        process: its process.
        uid: and whose that is.
    """
    try:
        told = site()
        job = job_of(process)
        given = allocation(job)
        if given.uid != uid:
            raise Never(f"job {job} is of {given.user}, not of uid {uid}")
        api = told.api()
        if asked.get("ask") == "token":
            return _again(api, told, given)
        file = wanted(str(asked.get("text", "")), told)
        _note(given, told)
        return start(api, told, given, file)
    except Never as error:
        return {"refused": str(error)}
    except Refused as error:
        return {"later" if _PASSING.search(str(error)) else "refused": str(error)}
    except (Away, Unknown) as error:
        return {"later": str(error)}


def _again(api: Api, told: Site, given: Allocation) -> dict[str, Any]:
    """Another token; of a job whose pods have gone, with all that was theirs, there is none."""
    try:
        return {"token": token(api, told, given)}
    except Refused as error:
        return {"gone" if error.status == 404 else "later": str(error)}


def _note(given: Allocation, told: Site) -> None:
    """Before there is a pod: the epilog looks here whether there is any."""
    RECORDS.mkdir(mode=0o700, parents=True, exist_ok=True)
    record = {
        "namespace": manifests.namespace(told, given.uid),
        "pods": [manifests.pod_name(given.job, index) for index in range(len(given.shares))],
        "restart": str(given.restarts),
        "user": pwd.getpwuid(given.uid).pw_name,
    }
    new = RECORDS / f".{given.job}.new"
    new.write_text(json.dumps(record))
    new.rename(RECORDS / f"{given.job}.json")


def main() -> None:
    """Answer the one whose connection is the standard input."""
    with socket.socket(fileno=os.dup(0)) as peer:
        peer.settimeout(30)
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        process, uid, _ = struct.unpack("3i", credentials)
        with peer.makefile("rb") as lines:
            # JSON writes a character of a file in six bytes at most.
            line = lines.readline(MAX_SIZE * 6 + 100)
        try:
            asked = json.loads(line)
            if not isinstance(asked, dict):
                raise ValueError("no object")
            said = answer(asked, process, uid)
        except ValueError as error:
            said = {"refused": f"not understood: {error}"}
        except Exception as error:  # whatever it is, the job is told
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            said = {"later": f"{type(error).__name__} on {os.uname().nodename}: its journal"}
        with contextlib.suppress(BrokenPipeError):  # its step has ended meanwhile
            peer.sendall(json.dumps(said).encode() + b"\n")


if __name__ == "__main__":
    main()
