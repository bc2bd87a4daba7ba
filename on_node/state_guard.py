"""Refuses a change of where state lies, or of whose state it is, while state would be left behind.

A daemon that starts on an empty folder knows no jobs, and ends those that its nodes report.
What is compared is the bundle that is to come with what this host's daemons run by.

    slurmctld BUNDLE      StateSaveLocation, the cluster's name
    slurmdbd BUNDLE       the database's and the archive's folder, the cluster's name
    folder OLD NEW WHAT   files that stay where nobody looks for them any more
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from on_node import slurm_state

SLURM_CONF = "/etc/slurm/slurm.conf"
SLURMDBD_CONF = "/etc/slurm/slurmdbd.conf"
CLIENT_CONF = "/usr/local/lib/slurmstack/accounting/slurm.conf"
MARIADB_CONF = "/etc/mysql/mariadb.conf.d/90-slurmstack.cnf"


def value(text: str | None, name: str) -> str | None:
    """The value of a ``Name=value`` line, names in any case."""
    match = re.search(rf"^\s*{name}\s*=\s*(.*?)\s*$", text or "", re.MULTILINE | re.IGNORECASE)
    return match[1] if match else None


def present(path: str) -> str | None:
    """A file's text; None where it is not there."""
    file = Path(path)
    return file.read_text() if file.exists() else None


def state_save_location(bundle: str) -> Iterator[str]:
    """slurmctld's state: jobs, nodes that people drained, reservations."""
    text = slurm_state.file_of_bundle(bundle, SLURM_CONF)
    old = value(present(SLURM_CONF), "StateSaveLocation")
    new = value(text, "StateSaveLocation")
    if old is None or new is None or not (Path(old) / "job_state").exists():
        return
    if Path(old).resolve() == Path(new).resolve():
        return
    copied = Path(new) / "job_state"
    was = (Path(old) / "job_state").stat().st_mtime
    active = _is_active("slurmctld.service")
    if copied.exists() and copied.stat().st_mtime >= was and not active:
        return
    yield (
        f"StateSaveLocation moves from {old} to {new}, where slurmctld would find "
        + ("an older state" if copied.exists() else "no jobs")
        + f" and end those that run. Move the state first; jobs go on meanwhile: systemctl stop "
        f"slurmctld && mkdir -p {new} && cp -a {old}/. {new}/ && chown slurm:slurm {new}, then run "
        "again, which starts slurmctld"
    )


def cluster_name(new: str | None, folder: str | None) -> Iterator[str]:
    """The name is part of slurmctld's state and of slurmdbd's tables.

    Args:
        new: ClusterName as it is to be.
        folder: StateSaveLocation as it is.
    """
    held = present(f"{folder}/clustername") if folder else None
    old = (held or "").strip().split("|")[0]
    if not old or new is None or old == new:
        return
    yield (
        f"the cluster's name changes from {old} to {new}: slurmctld refuses state of another "
        f"cluster ({folder}), and the accounting of {old} would not be that of {new}. Set "
        f"slurmstack:cluster.name back to {old}; or, to begin anew, end all jobs (scancel), then "
        f"systemctl stop slurmctld && mv {folder} {folder}.{old}, and run again"
    )


def database(bundle: str) -> Iterator[str]:
    """MariaDB's folder, as the running server says it."""
    new = value(slurm_state.file_of_bundle(bundle, MARIADB_CONF), "datadir")
    old = value(present(MARIADB_CONF), "datadir")
    if new == old or not Path(MARIADB_CONF).exists():
        return
    old, new = (old or "/var/lib/mysql").rstrip("/"), (new or "/var/lib/mysql").rstrip("/")
    if not (Path(old) / "slurm_acct_db").exists() or (Path(new) / "slurm_acct_db").exists():
        return
    yield (
        f"datadir of MariaDB moves from {old} to {new}, where there is no database. Move it first: "
        f"systemctl stop slurmdbd mariadb && mkdir -p {new} && cp -a {old}/. {new}/ && chown "
        f"mysql:mysql {new}, then run again"
    )


def left_behind(old: str | None, new: str | None, what: str) -> Iterator[str]:
    """Files of a folder that moves, where nobody looks for them any more."""
    if old is None or new is None or old == new or not Path(old).is_dir():
        return
    files = {file.name for file in Path(old).iterdir()}
    there = {file.name for file in Path(new).iterdir()} if Path(new).is_dir() else set()
    if files - there:
        yield (
            f"{what} moves from {old} to {new}, and {len(files - there)} files would stay behind. "
            f"Move them first: mkdir -p {new} && cp -a {old}/. {new}/, then run again"
        )


def _is_active(unit: str) -> bool:
    words = ["systemctl", "is-active", "--quiet", unit]
    return subprocess.run(words, timeout=20, check=False).returncode == 0


def slurmctld(bundle: str) -> Iterator[str]:
    """All that speaks against a bundle of slurmctld."""
    text = slurm_state.file_of_bundle(bundle, SLURM_CONF)
    yield from state_save_location(bundle)
    folder = value(present(SLURM_CONF), "StateSaveLocation")
    yield from cluster_name(value(text, "ClusterName"), folder)


def slurmdbd(bundle: str) -> Iterator[str]:
    """All that speaks against a bundle of slurmdbd."""
    conf = slurm_state.file_of_bundle(bundle, SLURMDBD_CONF)
    yield from database(bundle)
    archive = value(present(SLURMDBD_CONF), "ArchiveDir"), value(conf, "ArchiveDir")
    yield from left_behind(*archive, "ArchiveDir")
    folder = value(present(SLURM_CONF), "StateSaveLocation")
    client = slurm_state.file_of_bundle(bundle, CLIENT_CONF)
    yield from cluster_name(value(client, "ClusterName"), folder)


def main(words: Sequence[str]) -> int:
    verb, *rest = words
    if verb == "slurmctld":
        against = [*slurmctld(Path(rest[0]).read_text())]
    elif verb == "slurmdbd":
        against = [*slurmdbd(Path(rest[0]).read_text())]
    else:
        against = [*left_behind(rest[0], rest[1], rest[2])]
    if against:
        print("; ".join(against), file=sys.stderr)
    return 1 if against else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
