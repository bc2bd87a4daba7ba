#!/usr/bin/python3
"""Bring what slurmdbd holds to what is declared, through sacctmgr. Written by slurmstack.

    reconcile              take up the declared objects
    reconcile --check      print what would be done; exit code 3 if there is something
    reconcile --qos NAME…  make QOS that are missing, without limits

Only what is declared is touched. What was made here and which options were set here is remembered;
only that is taken back when its declaration goes. An option is compared in sacctmgr's own spelling:
as it was read back after it was set. Where things lie is in reconcile.json beside this file.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

#: Kind (cluster, qos, account, user, association) and name; an association's is "user account
#: partition", with - for none.
Key = tuple[str, str]
#: Object → its options.
Objects = dict[Key, dict[str, str]]

LOCK_SECONDS = 300


class Failure(Exception):
    """What was found, and what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(f"{found}; {remedy}")


@dataclass(frozen=True)
class Place:
    """The cluster, where things lie, and which options objects have."""

    cluster: str
    client_conf: str
    objects: str
    memory: str
    #: Seconds that one sacctmgr may take.
    patience: int
    #: Kind → options, as sacctmgr takes and shows them. An association's are also an account's and
    #: the cluster's.
    options: dict[str, list[str]]


@dataclass
class Memory:
    """What was made here, in order, and what was set here: object and option → the value that was
    asked for and how sacctmgr gave it back. A file of lines with tabs."""

    made: list[Key] = field(default_factory=list)
    set: dict[tuple[Key, str], tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Memory:
        memory = cls()
        for line in path.read_text().splitlines() if path.exists() else []:
            word, kind, key, *rest = line.split("\t")
            if word == "made":
                memory.made.append((kind, key))
            else:
                option, value, given = rest
                memory.set[(kind, key), option] = (value, given)
        return memory

    def write(self, path: Path) -> None:
        lines = ["\t".join(("made", *key)) for key in dict.fromkeys(self.made)]
        lines += [
            "\t".join(("set", *key, option, value, given))
            for (key, option), (value, given) in self.set.items()
        ]
        text = "".join(f"{line}\n" for line in lines)
        if path.exists() and path.read_text() == text:
            return
        new = path.with_name(f"{path.name}.new")
        new.write_text(text)
        new.replace(path)


@dataclass(frozen=True)
class Step:
    """One thing to be done: make, change or remove an object by sacctmgr, or only forget it."""

    verb: str
    key: Key
    command: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.verb} {' '.join(self.key)}"


def read_declared(text: str) -> Objects:
    """The declared objects, in their order."""
    found: Objects = {}
    options: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("  "):
            name, _, value = line[2:].partition("=")
            options[name] = value
        elif line and not line.startswith("#"):
            kind, _, key = line.partition(" ")
            if kind == "association" and len(key.split()) == 2:
                key += " -"
            options = found.setdefault((kind, key), {})
    return found


class Planner:
    """From what there is, what is declared and what is remembered to what is to be done."""

    def __init__(self, cluster: str, now: Objects, declared: Objects, memory: Memory) -> None:
        self.cluster = cluster
        self.now = now
        self.declared = declared
        self.memory = memory

    def plan(self) -> list[Step]:
        return [*self._settle(), *self._reset_left_behind(), *self._remove()]

    def _settle(self) -> Iterator[Step]:
        for key, options in self.declared.items():
            current = self.now.get(key)
            settings = [
                (name, value)
                for name, value in options.items()
                if not self._is_so(key, name, value)
                # The association that is made first makes the user, with that account.
                and not (key[0] == "user" and name == "DefaultAccount" and current is None)
            ]
            if current is None and key[0] != "user":
                yield Step("make", key, (*self._add(key), *_settings(settings)))
                continue
            settings += [
                (name, _not_set(name, value, key[1]))
                for (other, name), (value, _) in self.memory.set.items()
                if other == key and name not in options and self._is_as_set(key, name)
            ]
            if settings:
                yield self._modify(key, settings)

    def _reset_left_behind(self) -> Iterator[Step]:
        """Options of objects that are no longer declared, and stay because others made them."""
        for (key, name), (value, _) in self.memory.set.items():
            kept = key in self.now and key not in self.declared and key not in self.memory.made
            if kept and self._is_as_set(key, name):
                yield self._modify(key, [(name, _not_set(name, value, key[1]))])

    def _remove(self) -> Iterator[Step]:
        """What was made here and is no longer declared; what was made last goes first, and the
        default account of a user after its other ones, as sacctmgr asks for."""
        gone = [
            key
            for key in dict.fromkeys(reversed(self.memory.made))
            if key not in self.declared and key[0] in ("association", "account", "qos")
        ]
        for key in sorted(gone, key=self._round):
            if key in self.now:
                yield Step("remove", key, ("delete", _noun(key), *self._where(key)))
            else:
                yield Step("forget", key)

    def _round(self, key: Key) -> int:
        kind, name = key
        if kind != "association":
            return 3 if kind == "account" else 4
        user, account, _ = name.split(" ")
        is_default = self.now.get(("user", user), {}).get("DefaultAccount") == account
        return 2 if is_default else 1

    def _is_so(self, key: Key, name: str, value: str) -> bool:
        if key not in self.now:
            return False
        current = self.now[key].get(name, "")
        return current == value or self.memory.set.get((key, name)) == (value, current)

    def _is_as_set(self, key: Key, name: str) -> bool:
        _, given = self.memory.set[key, name]
        return name != "DefaultAccount" and self.now.get(key, {}).get(name, "") == given

    def _modify(self, key: Key, settings: list[tuple[str, str]]) -> Step:
        words = ("modify", _noun(key), "set", *_settings(settings), *self._where(key))
        return Step("change", key, words)

    def _where(self, key: Key) -> tuple[str, ...]:
        """The object that a command is about."""
        kind, name = key
        if kind == "association":
            user, account, partition = name.split(" ")
            partition = "" if partition == "-" else partition
            return (
                "where", f"name={user}", f"account={account}", f"cluster={self.cluster}",
                f"partition={partition}",
            )  # fmt: skip
        of_cluster = (f"cluster={self.cluster}",) if kind in ("account", "user") else ()
        return ("where", f"name={name}", *of_cluster)

    def _add(self, key: Key) -> tuple[str, ...]:
        kind, name = key
        if kind == "association":
            user, account, partition = name.split(" ")
            in_partition = () if partition == "-" else (f"partition={partition}",)
            return (
                "add", "user", f"name={user}", f"account={account}", f"cluster={self.cluster}",
                *in_partition,
            )  # fmt: skip
        of_cluster = (f"cluster={self.cluster}",) if kind == "account" else ()
        return ("add", kind, f"name={name}", *of_cluster)


def _noun(key: Key) -> str:
    return "user" if key[0] == "association" else key[0]


def _settings(settings: list[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in settings)


def _not_set(option: str, value: str, name: str) -> str:
    """The value that sacctmgr takes for "not set"."""
    if "TRES" in option:
        return re.sub(r"=[^,]*", "=-1", value)
    if option in ("Description", "Organization"):
        return name
    return {
        "QOS": "", "Preempt": "", "Fairshare": "1", "UsageFactor": "1", "Parent": "root",
        "AdminLevel": "None", "PreemptMode": "cluster", "GraceTime": "0",
    }.get(option, "-1")  # fmt: skip


class Database:
    """slurmdbd, through sacctmgr."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def read(self) -> Objects:
        """Everything that this cluster has."""
        options, cluster = self.place.options, self.place.cluster
        found: Objects = {}
        if any(name == cluster for (name,) in self._show("cluster", "Cluster")):
            found["cluster", cluster] = {}
        for kind, first in (("qos", "Name"), ("user", "User")):
            for name, *values in self._show(kind, first, *options[kind]):
                found[kind, name] = dict(zip(options[kind], values, strict=True))
        own = [name for name in options["account"] if name != "Parent"]
        accounts = {
            name: dict(zip(own, values, strict=True))
            for name, *values in self._show("account", "Account", *own)
        }
        limits = options["association"]
        columns = ("Account", "User", "Partition", "ParentName", *limits)
        where = (f"cluster={cluster}", "woplimits")
        for account, user, partition, parent, *values in self._show(
            "association", *columns, where=where
        ):
            held = dict(zip(limits, values, strict=True))
            if user:
                found["association", f"{user} {account} {partition or '-'}"] = held
            elif account == "root":
                found.setdefault(("cluster", cluster), {}).update(held)
            else:
                found["account", account] = {"Parent": parent, **held, **accounts.get(account, {})}
        return found

    def run(self, command: tuple[str, ...]) -> str | None:
        """Run sacctmgr; None, or why it failed."""
        done = self._sacctmgr("--immediate", *command)
        if done is None:
            return f"no answer within {self.place.patience} s"
        if done.returncode == 0:
            return None
        noise = ("Use keyword", "Changes Discarded")
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        words = [line for line in lines if line and not any(word in line for word in noise)]
        return " ".join(words) or f"exit {done.returncode}"

    def _show(self, what: str, *columns: str, where: tuple[str, ...] = ()) -> list[list[str]]:
        words = ("--parsable2", "--noheader", "show", what, *where, f"format={','.join(columns)}")
        done = self._sacctmgr(*words)
        if done is None or done.returncode != 0:
            lines = (done.stderr + done.stdout if done else "").strip().splitlines()
            raise Failure(
                "slurmdbd does not answer: "
                + (lines[-1].strip() if lines else f"nothing within {self.place.patience} s"),
                "systemctl status slurmdbd mariadb, journalctl -u slurmdbd, and pulumi up once it "
                "runs",
            )
        return [line.split("|") for line in done.stdout.splitlines() if line]

    def _sacctmgr(self, *words: str) -> subprocess.CompletedProcess[str] | None:
        environment = {**os.environ, "LC_ALL": "C", "SLURM_CONF": self.place.client_conf}
        try:
            return subprocess.run(
                ["sacctmgr", *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self.place.patience,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None


class Reconciler:
    """Plans carried out, each step remembered as it is done."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.database = Database(place)
        self.file = Path(place.memory)
        self.memory = Memory.read(self.file)

    def plan(self) -> list[Step]:
        declared = read_declared(Path(self.place.objects).read_text())
        return Planner(self.place.cluster, self.database.read(), declared, self.memory).plan()

    def plan_qos(self, names: list[str]) -> list[Step]:
        now = self.database.read()
        return [
            Step("make", ("qos", name), ("add", "qos", f"name={name}"))
            for name in names
            if ("qos", name) not in now
        ]

    def run(self, steps: list[Step]) -> None:
        for step in steps:
            if step.verb == "forget":
                self._forget(step.key)
                continue
            if step.verb == "make":
                self.memory.made.append(step.key)
                self.memory.write(self.file)
            if step.verb == "remove":
                self._refuse_if_needed(step.key)
            print(step, flush=True)
            why = self.database.run(step.command)
            if why is not None:
                if step.verb == "make":
                    self._forget(step.key)
                remedy = "correct its declaration, or what it needs, and run pulumi up again"
                raise Failure(f"{step}: {why}", remedy)
            if step.verb == "remove":
                self._forget(step.key)

    def remember(self) -> None:
        """What is declared now, and how sacctmgr spells it."""
        now = self.database.read()
        declared = read_declared(Path(self.place.objects).read_text())
        self.memory.set = {
            (key, name): (value, now.get(key, {}).get(name, ""))
            for key, options in declared.items()
            for name, value in options.items()
        }
        self.memory.write(self.file)

    def _forget(self, key: Key) -> None:
        self.memory.made = [other for other in self.memory.made if other != key]
        self.memory.write(self.file)

    def _refuse_if_needed(self, key: Key) -> None:
        """Whether something that others made still needs what is to be removed."""
        kind, name = key
        if kind not in ("account", "qos"):
            return
        now = self.database.read()
        if kind == "account":
            associations = [other.split(" ") for what, other in now if what == "association"]
            users = sorted({user for user, account, _ in associations if account == name})
            below = [
                other
                for (what, other), options in now.items()
                if what == "account" and options.get("Parent") == name
            ]
            held = [f"users {' '.join(users)}"] if users else []
            held += [f"accounts {' '.join(below)}"] if below else []
            if held:
                raise Failure(
                    f"account {name} is not declared any more, but holds what slurmstack did not "
                    f"make: {', '.join(held)}",
                    f"take these out of it with sacctmgr, or declare account {name} again",
                )
            return
        users = sorted(
            " ".join(other)
            for other, options in now.items()
            if any(name in options.get(o, "").split(",") for o in ("QOS", "DefaultQOS", "Preempt"))
        )
        if users:
            raise Failure(
                f"QOS {name} is not declared any more, but is named by {', '.join(users)}",
                f"take it out there with sacctmgr, or declare QOS {name} again",
            )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One run at a time."""
    with path.open("a") as file:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise Failure(f"another run holds {path}", "wait until it has ended") from None
                time.sleep(0.2)
        yield


def main(words: list[str]) -> int:
    os.umask(0o077)
    place = Place(**json.loads(Path(__file__).with_name("reconcile.json").read_text()))
    if words == ["--check"]:
        # Looking takes no lock and makes no file.
        due = [step for step in Reconciler(place).plan() if step.verb != "forget"]
        for step in due:
            print(f"{step}: {shlex.join(('sacctmgr', '--immediate', *step.command))}")
        return 3 if due else 0
    with locked(Path(f"{place.memory}.lock")):
        reconciler = Reconciler(place)
        if words[:1] == ["--qos"]:
            reconciler.run(reconciler.plan_qos(words[1:]))
        elif not words:
            reconciler.run(reconciler.plan())
            reconciler.remember()
        else:
            raise Failure(f"{words[0]!r} is not understood", "reconcile [--check | --qos NAME…]")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failure as failure:
        sys.exit(str(failure))
