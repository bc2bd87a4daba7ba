"""What jobs' pods used, into Slurm's accounting: on the controller, with each look for orphans.

Slurm measures its own steps, and takes no other figures for them: in a pod's place it has measured
the batch step that follows it. So the pods' figures go into the job's AdminComment, in words, once
its pods have gone; one that the site has written stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from on_node import slurm_state
from on_node.pods import usage
from on_node.pods.api import Api, Refused
from on_node.pods.usage import Used

STATE = Path("/var/lib/slurmstack-pods/used.json")
#: How what is written begins.
_OURS = "pods: "
#: Job → node → what its pod used there.
Known = dict[str, dict[str, Used]]


def look(api: Api, pods: Iterable[Mapping[str, Any]], known: Known) -> None:
    """Take up what the jobs' pods use now.

    Raises:
        Away: Kubernetes does not answer.
        Refused: it says no.
    """
    of_run = {
        (of["namespace"], of["name"]): (
            of["labels"]["job-id"],
            of["annotations"]["slurmstack/node"],
        )
        for of in (it["metadata"] for it in pods)
        # Whoever is root on a node makes pods that only look like these.
        if of["labels"].get("job-id", "").isdecimal()
        and "slurmstack/node" in of.get("annotations", ())
    }
    for namespace in sorted({name for name, _ in of_run}):
        try:
            told = api.get(usage.path(namespace), labelSelector="app=slurm-job")["items"]
        except Refused as error:
            if error.status == 404:
                return  # nobody measures here
            raise
        for it in told:
            job, node = of_run.get((namespace, it["metadata"]["name"]), ("", ""))
            if job:
                known.setdefault(job, {}).setdefault(node, Used()).take(it)


def write(known: Known, jobs: Iterable[str]) -> None:
    """Of jobs that have no pods any more, into accounting.

    Raises:
        RuntimeError: slurmdbd does not answer; they stay known.
    """
    for job in sorted(set(known) - set(jobs)):
        there = slurm_state.command("sacct", "-X", "-n", "-P", "-j", job, "-o", "AdminComment")
        if not there.strip() or there.startswith(_OURS):  # of an earlier run
            text = "; ".join(f"{node}: {used}" for node, used in sorted(known[job].items()))
            words = ("modify", "job", "where", f"jobid={job}", "set", f"admincomment={_OURS}{text}")
            slurm_state.command("sacctmgr", "-i", *words)
        del known[job]


def load(path: Path = STATE) -> Known:
    """What was known at the last look."""
    try:
        told = json.loads(path.read_text())
        return {job: {node: Used(**it) for node, it in of.items()} for job, of in told.items()}
    except (OSError, ValueError, TypeError):
        return {}


def save(known: Known, path: Path = STATE) -> None:
    """For the next look."""
    new = path.with_name(f".{path.name}.new")
    told = {job: {node: asdict(it) for node, it in of.items()} for job, of in known.items()}
    new.write_text(json.dumps(told))
    new.rename(path)
