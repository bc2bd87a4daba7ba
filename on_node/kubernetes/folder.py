"""The submit folder: each file in it becomes one job of its owner's, once, whatever dies meanwhile.

    submit/      anybody puts files there; one is taken when it has stopped growing
    .taken/      KEY--NAME: taken, until it is known what became of it. Beside it KEY.sent, once
                 sbatch is about to be told of it, and KEY.job with the job's id
    processed/   it has become a job: NAME, and NAME.txt with the job's id
    failed/      it has not: NAME, and NAME.txt with the reason

A file is taken by a rename, which one watcher alone can do. The job waits (--hold) until its id
lies beside the file, and has KEY in its comment: so a watcher that finds a file taken asks
slurmctld for the job, which cannot have ended and been forgotten meanwhile.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from on_node import slurm_state
from on_node.kubernetes import registry, rules, submission
from on_node.kubernetes.job_file import Image, JobFile, Mistake, read
from on_node.kubernetes.registry import NotNow
from on_node.kubernetes.rules import Person, Rules
from on_node.kubernetes.submission import Refused
from on_node.slurm_state import Config

#: Without what changes a line of the journal, or is no text.
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
#: Bytes; a name gets a key of 34 and an ending before it.
_LONGEST = 200
#: Seconds after which slurmctld has a job that it was told of, or never will: MessageTimeout is 10
#: by default, and sbatch tries for longer than once.
_IN_FLIGHT = 60


@dataclass(frozen=True)
class Site:
    """What the settings say (``slurmstack:kubernetesBridge``)."""

    folder: Path
    rules: Rules
    #: Registry → https or http.
    schemes: dict[str, str]
    #: Seconds within which a registry answers.
    registry_seconds: float
    #: A file with the certificates of registries; None for the system's.
    ca: str | None
    #: Files of one user that may wait at once.
    waiting: int
    #: Seconds for which a file has not grown when it is taken.
    settled: float
    #: Whether jobs whose file names an image run as pods.
    pods: bool = False


def running() -> Config:
    """What slurmctld runs by.

    Raises:
        NotNow: it does not answer.
    """
    try:
        return slurm_state.running()
    except RuntimeError as error:
        raise NotNow(str(error)) from None


def wrong(
    content: bytes, owner: Person, site: Site, cluster: Callable[[], Config] = running
) -> tuple[JobFile, list[str]]:
    """A file, and all that is against it.

    Args:
        content: what is in it.
        owner: whose job it is to be.
        site: the rules.
        cluster: what slurmctld runs by; asked if the file can be read.

    Raises:
        NotNow: slurmctld or a registry does not answer.
    """
    job, mistakes = read(content)
    if job.text:
        mistakes += rules.mistakes(job, site.rules, cluster(), owner)
    image = job.image
    # With a mistake that is known already, no registry is asked, nor waited for.
    if image is not None and not mistakes and not has(image, site):
        text = f"K8S_IMAGE: registry {image.registry} has no {image.name}:{image.reference}"
        mistakes.append(Mistake(job.kubernetes["IMAGE"][1], text))
    return job, [str(it) for it in sorted(mistakes)]


def has(image: Image, site: Site) -> bool:
    """Whether its registry has an image."""
    scheme = site.schemes[image.registry]
    return registry.has(image, scheme, site.registry_seconds, site.ca)


@dataclass
class Watcher:
    """What becomes of the files of one folder."""

    site: Site
    say: Callable[[str], None]
    #: What was last said of a file that has to wait.
    _said: dict[str, str] = field(default_factory=dict)
    #: Name → size and time of change, at the last look.
    _seen: dict[str, tuple[int, int, float]] = field(default_factory=dict)
    #: What slurmctld runs by, asked once a round however many files there are.
    _config: Config | None = None

    @property
    def unsettled(self) -> bool:
        """Whether files are there that may still grow, or that are tried again."""
        return bool(self._seen)

    def round(self) -> None:
        """Bring to an end what was begun, then take what has come."""
        self._config = None
        begun = self._folder(".taken")
        for taken in sorted(begun.glob("*--*")):
            self._attempt(taken.name.partition("--")[2], taken)
        for mark in [*begun.glob("*.sent"), *begun.glob("*.job")]:
            if not any(begun.glob(f"{mark.stem}--*")):
                mark.unlink()  # of one that came to its place before a watcher died
        for name in self._settled():
            taken = self._folder(".taken") / f"{uuid.uuid4().hex}--{name}"
            try:
                (self._folder("submit") / name).rename(taken)
            except FileNotFoundError:
                continue  # another has it, or its owner took it back
            except OSError as error:
                self._wait(name, error.strerror or str(error))
                continue
            self._attempt(name, taken)

    def _cluster(self) -> Config:
        if self._config is None:
            self._config = running()
        return self._config

    def _folder(self, name: str) -> Path:
        return self.site.folder / name

    def _settled(self) -> Iterator[str]:
        """Files that have not grown since a while, the oldest first, as many as a user may have."""
        now, seen = time.monotonic(), {}
        entries = []
        for entry in os.scandir(self._folder("submit")):
            if entry.name.startswith("."):
                continue  # of a program that copies (rsync, an editor, NFS)
            try:
                look = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            size, changed, since = self._seen.get(entry.name, (-1, 0, now))
            if (size, changed) != (look.st_size, look.st_mtime_ns):
                since = now
            seen[entry.name] = (look.st_size, look.st_mtime_ns, since)
            entries.append((look.st_mtime_ns, entry.name, look.st_uid, now - since))
        self._seen = seen
        of_user: Counter[int] = Counter()
        for _, name, uid, quiet in sorted(entries):
            of_user[uid] += 1
            if of_user[uid] > self.site.waiting:
                self._refuse_unread(name, f"more than {self.site.waiting} files of yours wait")
            elif not _NAME.fullmatch(name) or len(os.fsencode(name)) > _LONGEST:
                self._refuse_unread(name, f"its name is {name!a}: expected a printable one")
            elif quiet >= self.site.settled:
                yield name

    def _refuse_unread(self, name: str, reason: str) -> None:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:60]
        taken = self._folder(".taken") / f"{uuid.uuid4().hex}--{plain}"
        try:
            (self._folder("submit") / name).rename(taken)
        except OSError as error:
            self._wait(plain, error.strerror or str(error))
        else:
            self._end(taken, plain, "failed", reason)

    def _attempt(self, name: str, taken: Path) -> None:
        """One file, as far as it goes now."""
        key = taken.name.partition("--")[0]
        try:
            owner = submission.person(taken.lstat().st_uid)
            job = self._job_of(taken, key, name, owner)
            if job is not None:
                self._end(taken, name, "processed", f"job {job}")
        except Refused as error:
            self._end(taken, name, "failed", str(error))
        except (NotNow, OSError) as error:
            self._wait(name, str(error))
        except Exception as error:
            # Whatever is in a file, it stops the others of no one.
            self._end(taken, name, "failed", f"cannot be read: {type(error).__name__}: {error}")

    def _job_of(self, taken: Path, key: str, name: str, owner: Person) -> str | None:
        """The id of the job that it has become; None where that is not known yet."""
        sent, written = taken.with_name(f"{key}.sent"), taken.with_name(f"{key}.job")
        job = _text(written)
        if job is None and sent.exists():
            job = submission.submitted(key)
            if job is None and time.time() < sent.stat().st_mtime + _IN_FLIGHT:
                return None
        if job is None:
            content = submission.content(taken, owner)
            file, against = wrong(content, owner, self.site, self._cluster)
            if against:
                raise Refused("\n".join(against))
            _write(sent, "held" if "hold" in file.options else "")
            sends = file.as_pod() if self.site.pods else file
            job = submission.submit(sends, owner, name, key)
        if not written.exists():
            _write(written, job)
        if sent.read_text() != "held":
            submission.release(job, owner)
        return job

    def _end(self, taken: Path, name: str, folder: str, what: str) -> None:
        """The file to its last place, and what became of it beside it."""
        key = taken.name.partition("--")[0]
        place = self._folder(folder) / name
        number = 1
        while os.path.lexists(place) or _text(Path(f"{place}.txt")) not in (None, f"{what}\n"):
            number += 1
            place = self._folder(folder) / f"{name}.{number}"
        _write(Path(f"{place}.txt"), f"{what}\n")
        taken.rename(place)
        for ending in ("sent", "job"):
            taken.with_name(f"{key}.{ending}").unlink(missing_ok=True)
        self._said.pop(name, None)
        self.say(f"{name}: {folder}: {'; '.join(what.splitlines())}")

    def _wait(self, name: str, reason: str) -> None:
        """It stays where it is and is tried again; said once as long as the reason is the same."""
        if self._said.get(name) != reason:
            self._said[name] = reason
            self.say(f"{name}: waits: {reason}")


def _text(path: Path) -> str | None:
    return path.read_text(errors="replace") if os.path.lexists(path) else None


def _write(path: Path, text: str) -> None:
    """A file that is there whole, or not at all, also when the machine dies."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
