"""Reading a file and submitting it, as the person whose it is.

The service has no right but to become another user (CAP_SETUID, CAP_SETGID): it reads with that
user's eyes, and sbatch sends a credential of that user's (munge(7)).
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from on_node import slurm_state
from on_node.kubernetes.job_file import MAX_SIZE, JobFile
from on_node.kubernetes.registry import NotNow
from on_node.kubernetes.rules import Person
from on_node.user_groups import groups_of

#: Seconds for a command of Slurm's.
_SECONDS = 60
#: What sbatch says when slurmctld is away; whether it got the job is not known then.
_AWAY = re.compile(
    r"Unable to contact slurm controller|Socket timed out|Connection (refused|reset)|"
    r"Slurm backup controller in standby|Zero Bytes were transmitted|"
    r"Slurm controller not responding|Slurm temporarily unable to accept job"
)
_MARK = "slurmstack-file:"


class Refused(Exception):
    """The file is not submitted, whatever comes; why."""


def person(uid: int) -> Person:
    """Who it is, with all groups.

    Raises:
        Refused: root, or nobody that this host knows.
    """
    if uid == 0:
        raise Refused(
            "belongs to root; jobs are submitted as the owner of their file, never as root"
        )
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        raise Refused(f"belongs to uid {uid}, whom {os.uname().nodename} does not know") from None
    return Person(entry.pw_name, uid, groups_of(entry.pw_name))


def uid(name: str) -> int:
    """The number of a user.

    Raises:
        Refused: this host knows none of that name.
    """
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise Refused(f"{os.uname().nodename} knows no user {name}") from None


def content(path: Path, owner: Person) -> bytes:
    """What is in the file.

    Raises:
        Refused: it is no plain file of the owner's alone, or they cannot read it.
        NotNow: the share does not give it.
    """
    look = path.lstat()
    if not stat.S_ISREG(look.st_mode):
        raise Refused("is no plain file")
    if look.st_nlink != 1:
        raise Refused("has another name (a hard link)")
    entry = pwd.getpwuid(owner.uid)
    own_group = look.st_gid == entry.pw_gid and _group(look.st_gid) == owner.name
    if look.st_mode & stat.S_IWOTH or (look.st_mode & stat.S_IWGRP and not own_group):
        raise Refused("may be written by others than its owner: chmod go-w")
    if look.st_size > MAX_SIZE:
        raise Refused(f"is larger than {MAX_SIZE} bytes")
    done = _as(owner, ["head", "-c", str(MAX_SIZE + 1), "--", str(path)])
    if done.returncode != 0:
        words = done.stderr.decode(errors="replace").strip()
        if "Permission denied" in words:
            raise Refused(f"{owner.name} cannot read it")
        raise NotNow(words)
    return done.stdout


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def submit(job: JobFile, owner: Person, name: str, key: str) -> str:
    """Submit a job that waits until it is released, with a mark by which it is known again.

    Args:
        job: the file.
        owner: as whom.
        name: the job's, where the file gives none.
        key: the mark.

    Returns: the job's id.

    Raises:
        Refused: Slurm's own words.
        NotNow: slurmctld is away; it may have the job all the same.
    """
    comment = f"{job.value('comment') or ''} {_MARK}{key}".strip()
    words = ["sbatch", "--parsable", "--hold", "--ignore-pbs", f"--comment={comment}"]
    words += [f"--chdir={home(owner)}"] if "chdir" not in job.options else []
    words += [f"--job-name={name}"] if "job-name" not in job.options else []
    done = _as(owner, words, job.text.encode())
    if done.returncode == 0:
        return done.stdout.decode().strip().partition(";")[0]
    said = done.stderr.decode(errors="replace")
    if _AWAY.search(said):
        raise NotNow(_reason(said))
    raise Refused(_reason(said))


def _reason(said: str) -> str:
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in said.splitlines()]
    return "; ".join(dict.fromkeys(line.strip() for line in lines if line.strip())) or "no reason"


def submitted(key: str) -> str | None:
    """The id of the job with this mark. It waits until it is released, so that slurmctld has it.

    Raises:
        NotNow: slurmctld does not answer.
    """
    try:
        shown = slurm_state.shown_jobs()
    except RuntimeError as error:
        raise NotNow(str(error)) from None
    for line in shown.splitlines():
        if re.search(rf" Comment=.*{_MARK}{key}(?!\w)", line):
            fields = slurm_state.fields(line)
            return fields.get("ArrayJobId", fields["JobId"])
    return None


def release(job: str, owner: Person) -> None:
    """Let it start. One that has ended meanwhile, or was cancelled, is nothing to release.

    Raises:
        NotNow: slurmctld is away.
    """
    done = _as(owner, ["scontrol", "release", job])
    said = done.stderr.decode(errors="replace")
    if done.returncode != 0 and _AWAY.search(said):
        raise NotNow(_reason(said))


def home(owner: Person) -> str:
    """Where a job starts that says nothing of it, as sbatch would from a login."""
    return pwd.getpwuid(owner.uid).pw_dir


def _as(
    owner: Person, words: Sequence[str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a command as this user; what is in its environment is what a job begins with.

    Raises:
        NotNow: it does not end.
    """
    entry = pwd.getpwuid(owner.uid)
    try:
        return subprocess.run(
            words,
            input=stdin,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            user=owner.uid,
            group=entry.pw_gid,
            extra_groups=os.getgrouplist(entry.pw_name, entry.pw_gid),
            cwd="/",
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": entry.pw_dir, "USER": entry.pw_name,
                "LOGNAME": entry.pw_name, "SHELL": entry.pw_shell, "LANG": "C.UTF-8",
            },
            umask=0o022,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotNow(f"{words[0]} has not ended within {_SECONDS} s") from None
