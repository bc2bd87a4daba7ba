"""Job files of people.

check FILE     what is wrong with it, all at once; ends with 1 where something is, and with 2
               where it cannot be told now
submit FILE    the same, and then sbatch, whose exit code it has
registries     whether each registry answers from here; ends with 1 where one does not
watch          the submit folder, until it is ended
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from on_node.kubernetes import folder, registry, submission
from on_node.kubernetes.folder import Site, Watcher
from on_node.kubernetes.job_file import read
from on_node.kubernetes.lock import Lock, Lost
from on_node.kubernetes.registry import NotNow
from on_node.kubernetes.rules import Rules
from on_node.kubernetes.submission import Refused

CONFIGURATION = Path("/etc/slurmstack/jobs.json")
#: Seconds between two looks at the share: on NFS no event tells what another host has written.
_INTERVAL = 10


def site(path: Path) -> Site:
    """What the settings say, as the component has written it."""
    told = json.loads(path.read_text())
    return Site(
        folder=Path(told["folder"]),
        rules=Rules(tuple(told["registries"]), tuple(told["folders"])),
        schemes=dict(told["registries"]),
        registry_seconds=told["registrySeconds"],
        ca=told["ca"],
        waiting=told["waitingFiles"],
        settled=told["settledSeconds"],
        pods=told["pods"],
    )


def check(file: str, told: Site, user: str | None = None) -> int:
    """Say what is wrong with a file, the caller's or that of a user."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        owner = submission.person(os.getuid() if user is None else submission.uid(user))
        _, against = folder.wrong(content, owner, told)
    except (OSError, NotNow) as error:
        print(f"slurmstack-job: {file}: {error}", file=sys.stderr)
        return 2
    except Refused as error:
        against = [str(error)]
    for line in against:
        print(f"slurmstack-job: {file}: {line}", file=sys.stderr)
    return 1 if against else 0


def submit(file: str, told: Site) -> int:
    """sbatch of a file that was read before; its exit code."""
    job, _ = read(Path(file).read_bytes())
    words = ["sbatch", "--ignore-pbs"]
    if "job-name" not in job.options:
        words.append(f"--job-name={Path(file).name}")
    sends = job.as_pod() if told.pods else job
    return subprocess.run(words, input=sends.text.encode(), check=False).returncode


def registries(told: Site) -> int:
    """Ask each, one after the other."""
    good = True
    for name, scheme in told.schemes.items():
        try:
            registry.answers(name, scheme, told.registry_seconds, told.ca)
            print(f"registry {name} answers")
        except NotNow as error:
            print(error)
            good = False
    return 0 if good else 1


def watch(told: Site) -> None:
    """One watcher at a time; another waits until it has gone."""
    watcher = Watcher(told, _say)
    lock: Lock | None = None
    trouble = ""
    wait = _waiter(told.folder / "submit")
    while True:
        now = ""
        try:
            lock = lock or Lock(told.folder / ".taken" / ".lock", _say)
            lock.look()
            watcher.round()
        except Lost as error:
            _say(f"{error.filename}: {error.strerror}; the lock is taken anew")
            if lock is not None:
                lock.close()
            # What tells of new files may look at a folder that is not there any more, too.
            lock, wait = None, _waiter(told.folder / "submit")
        except OSError as error:
            now = f"{told.folder}: {error.strerror}; nothing is taken until it is back"
        if now != trouble:
            _say(now or f"{told.folder} is back")
            trouble = now
            wait = wait if now else _waiter(told.folder / "submit")
        wait(told.settled if watcher.unsettled else _INTERVAL)


def _say(line: str) -> None:
    print(line, flush=True)


def _waiter(path: Path) -> Callable[[float], None]:
    """Waits until something comes, or for some seconds where nothing tells of it."""
    try:
        import inotify.adapters  # type: ignore[import-not-found]
        import inotify.constants  # type: ignore[import-not-found]
    except ImportError:
        return time.sleep
    mask = inotify.constants.IN_CLOSE_WRITE | inotify.constants.IN_MOVED_TO
    try:
        adapter = inotify.adapters.Inotify()
        adapter.add_watch(str(path), mask=mask)
    except Exception as error:  # of several kinds; without events it looks by the clock
        print(f"{path}: no events ({error})", flush=True)
        return time.sleep

    def wait(seconds: float) -> None:
        for _ in adapter.event_gen(timeout_s=seconds, yield_nones=False):
            return

    return wait


def main(words: Sequence[str]) -> int:
    by_root = len(words) == 3 and words[0] == "check" and os.getuid() == 0
    if (len(words) == 2 and words[0] in ("check", "submit")) or by_root:
        told = site(CONFIGURATION)
        status = check(words[1], told, words[2] if by_root else None)
        return submit(words[1], told) if status == 0 and words[0] == "submit" else status
    if list(words) == ["registries"]:
        return registries(site(CONFIGURATION))
    if list(words) == ["watch"]:
        watch(site(CONFIGURATION))
    print((__doc__ or "").strip(), file=sys.stderr)
    return errno.EINVAL


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
