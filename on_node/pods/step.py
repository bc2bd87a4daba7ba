"""A job's batch step: it has the node make the job's pods, and lives as long as they do.

It is the interpreter of a job file (``#!/usr/local/bin/slurmstack-pod /bin/bash``), runs as the
job's user, writes what the pods write, ends as they end, and ends them when it is told to end.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from on_node.pods import usage
from on_node.pods.agent import TOKEN
from on_node.pods.api import Api, Away, Refused
from on_node.pods.places import SOCKET
from on_node.pods.results import Results, tidy
from on_node.pods.site import Site, site
from on_node.pods.usage import Used, UsedGpus

#: As of docker and podman: the pod, not what runs in it, could not be run.
NOT_RUN = 125
#: Seconds between two looks at a pod.
_LOOK = 1.0
#: Seconds for which a reason to wait has lasted when it is said.
_PATIENCE = 5
#: Seconds between two looks at what a pod uses: as often as it is measured.
_MEASURE = 15
#: Seconds after which a log that says nothing is asked for again.
_QUIET = 60
#: Reasons for which a pod that waits never starts, however long one waits.
_HOPELESS = ("InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")


class NotRun(Exception):
    """There is no pod; why."""


def ask(asked: dict[str, str]) -> dict[str, Any]:
    """Ask this node's agent.

    Raises:
        Away: it does not answer.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(120)
            peer.connect(SOCKET)
            peer.sendall(json.dumps(asked).encode() + b"\n")
            with peer.makefile("rb") as lines:
                said: dict[str, Any] = json.loads(lines.readline())
                return said
    except (OSError, ValueError) as error:
        raise Away(f"{SOCKET}: {error}") from None


@dataclass
class Step:
    """One job's pods."""

    told: Site
    namespace: str = ""
    pods: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    #: Set once the job has to end.
    ended: threading.Event = field(default_factory=threading.Event)
    results: Results | None = None
    summary: dict[str, str] = field(default_factory=dict)
    #: By pods' numbers; and why it is not told of one.
    used: dict[int, Used] = field(default_factory=dict)
    unmeasured: str = ""
    #: Of this node alone: where the batch step is.
    gpus: UsedGpus = field(default_factory=UsedGpus)
    _over: threading.Event = field(default_factory=threading.Event)
    _token: str = ""
    _since: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, file: Path) -> int:
        """The exit code of the job, whose results are kept by then."""
        begin = time.time()
        if self.results is not None:
            self.results.begin()
        code = self._run(file)
        if self.results is not None:
            times = {
                f"{word}": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(when))
                for word, when in (("began", begin), ("ended", time.time()))
            }
            told = {"exit code": str(code), **times, "seconds": f"{time.time() - begin:.0f}"}
            kept = self.results.end({**self.summary, **told, "used": self._used()})
            if kept is None:
                self.say(f"the results are not kept: {self.results.trouble}")
            else:
                self._tidy(kept)
        return code

    def _tidy(self, kept: Path) -> None:
        """Earlier results of this user's give way, where the settings say so."""
        if self.told.keep is None and self.told.limit is None:
            return
        try:
            for line in tidy(kept.parent, kept, self.told.keep, self.told.limit, time.time()):
                say(line)
        except FileNotFoundError:
            return  # another job of theirs is at it
        except OSError as error:
            say(f"earlier results: {error.filename}: {error.strerror}")

    def say(self, line: str) -> None:
        """A line of ours: to the job's output, and into its results."""
        say(line)
        if self.results is not None:
            self.results.write("stderr.log", f"slurmstack-pod: {line}\n".encode())

    def _run(self, file: Path) -> int:
        end = time.monotonic() + self.told.start
        try:
            self._start(file.read_text(), end)
        except NotRun as error:
            self.say(f"the pod cannot be run: {error}")
            return NOT_RUN
        codes = [NOT_RUN] * len(self.pods)

        def follow(index: int) -> None:
            codes[index] = self._follow(index, end)
            if codes[index]:
                self.ended.set()  # one that failed: the others would wait for it

        others = [threading.Thread(target=follow, args=[index]) for index in range(len(self.pods))]
        besides = [self._end] if self.results is None else [self._end, self._measure]
        for one in (*others, *(threading.Thread(target=it, daemon=True) for it in besides)):
            one.start()
        for one in others:
            while one.is_alive():
                one.join(1)  # a signal is handled between two of these
        self._over.set()
        return next((code for code in codes if code), 0)

    def _start(self, text: str, end: float) -> None:
        waits = Waits(self.say)
        while not self.ended.is_set():
            try:
                said = ask({"ask": "start", "text": text})
            except Away as error:
                said = {"later": str(error)}
            if "refused" in said:
                raise NotRun(said["refused"])
            if "later" not in said:
                self.namespace, self.pods = said["namespace"], said["pods"]
                self.nodes, self.summary = said["nodes"], said["summary"]
                self._token, self._since = said["token"], time.monotonic()
                return
            if time.monotonic() > end:
                raise NotRun(f"not within {self.told.start} s: {said['later']}")
            waits.for_now(said["later"])
        raise NotRun("the job was ended before it was there")

    @property
    def api(self) -> Api:
        """With a token that holds.

        Raises:
            Away: there is none now.
        """
        with self._lock:
            if time.monotonic() > self._since + TOKEN * 0.7:
                said = ask({"ask": "token"})
                if "gone" in said:
                    raise Refused(404, said["gone"])
                if "token" not in said:
                    raise Away(str(said.get("later", said.get("refused"))))
                self._token, self._since = said["token"], time.monotonic()
            return self.told.api(self._token)

    def _path(self, index: int) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.pods[index]}"

    def _follow(self, index: int, end: float) -> int:
        """Until a pod has ended: its exit code."""
        log = Log(f"{self.nodes[index]}: " if index else "", self._write)
        uid, waits = None, Waits(self.say)
        while True:
            try:
                pod = self.api.get(self._path(index))
            except Refused as error:
                # With the pod goes the right to see it; of a job that is not to end, another token
                # tells whether it is that.
                if error.status == 404 or (error.status in (401, 403) and self.ended.is_set()):
                    if not self.ended.is_set():
                        self.say(f"pod {self.pods[index]} was deleted by others")
                    return 1
                self._since = float("-inf")
                if error.status not in (401, 403):
                    waits.for_now(str(error))
                else:
                    time.sleep(_LOOK)
                continue
            except Away as error:
                waits.for_now(str(error))
                continue
            uid = uid or pod["metadata"]["uid"]
            if pod["metadata"]["uid"] != uid:
                self.say(f"pod {self.pods[index]} is another one by now")
                return 1
            status = pod.get("status", {})
            containers = status.get("containerStatuses") or [{}]
            state = containers[0].get("state", {})
            if (done := state.get("terminated")) or status.get("phase") in ("Failed", "Succeeded"):
                self._log(index, log, follow=False)
                return self._code(index, status, done)
            if "running" in state:
                self._log(index, log, follow=True)
                time.sleep(_LOOK / 4)
                continue
            reason = waiting(status, state)
            if time.monotonic() > end or reason.startswith(_HOPELESS):
                self.say(
                    f"pod {self.pods[index]} has not started within {self.told.start} s: {reason}"
                )
                self.ended.set()
                return NOT_RUN
            waits.for_now(reason)

    def _write(self, line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        if self.results is not None:
            self.results.write("stdout.log", line)

    def _log(self, index: int, log: Log, follow: bool) -> None:
        """What the pod has written since; while it runs, as long as it writes."""
        query: dict[str, str | int] = {"timestamps": "true", **log.since}
        try:
            quiet = _QUIET if follow else 10
            query |= {"follow": "true"} if follow else {}
            with self.api.stream(f"{self._path(index)}/log", quiet, **query) as pieces:
                for piece in pieces:
                    log.take(piece)
        except (Away, Refused) as error:
            if not follow:
                self.say(f"the rest of the pod's log cannot be had: {error}")
        finally:
            log.cut(write=not follow)

    def _code(self, index: int, status: dict[str, Any], done: dict[str, Any] | None) -> int:
        name = self.pods[index]
        if done is None:
            self.say(f"pod {name} {status.get('reason', 'failed')}: {status.get('message', '')}")
            return 1
        if done.get("reason") not in (None, "Completed", "Error"):
            self.say(f"pod {name} ended: {done['reason']} {done.get('message', '')}".rstrip())
        return int(done["exitCode"])

    def _measure(self) -> None:
        """What the pods use, as long as they run."""
        numbers = os.environ.get("SLURM_JOB_GPUS", "")
        while not self._over.wait(_MEASURE):
            if numbers:
                self.gpus.take(numbers, usage.ask_gpus())
            for index, name in enumerate(self.pods):
                try:
                    told = self.api.get(usage.path(self.namespace, name))
                    self.used.setdefault(index, Used()).take(told)
                except (Away, Refused) as error:
                    self.unmeasured = str(error)
                except (KeyError, ValueError) as error:
                    self.unmeasured = f"{usage.path(self.namespace, name)}: {error}"

    def _used(self) -> str:
        told = [f"{self.nodes[index]}: {it}" for index, it in sorted(self.used.items())]
        told = told or [f"not measured: {self.unmeasured or 'it was too short'}"]
        if self.gpus.samples:
            told.append(f"{self.nodes[0] if self.nodes else 'here'}: {self.gpus}")
        return "; ".join(told)

    def _end(self) -> None:
        """Once the job has to end: the pods, with their time to do so."""
        self.ended.wait()
        left, waits = list(range(len(self.pods))), Waits(self.say)
        while left:
            try:
                self.api.delete(self._path(left[0]), self.told.grace)
                left.pop(0)
            except Refused as error:
                if error.status == 404:
                    return
                self._since = float("-inf")
                waits.for_now(f"to end pod {self.pods[left[0]]}: {error}")
            except Away as error:
                waits.for_now(f"to end pod {self.pods[left[0]]}: {error}")


@dataclass
class Waits:
    """What is waited for: said once, when it lasts."""

    say: Callable[[str], None]
    _reason: str = ""
    _since: float = 0
    _said: bool = False

    def for_now(self, reason: str) -> None:
        """Wait a moment."""
        now = time.monotonic()
        if reason != self._reason:
            self._reason, self._since, self._said = reason, now, False
        if not self._said and now >= self._since + _PATIENCE:
            self._said = True
            self.say(f"waits: {reason}")
        time.sleep(_LOOK)


def waiting(status: dict[str, Any], state: dict[str, Any]) -> str:
    """Why a pod has not started."""
    why = state.get("waiting", {})
    told = [str(why.get("reason", "")), str(why.get("message", ""))]
    if not any(told):
        told = [str(status.get("reason", "")), str(status.get("message", ""))]
    if not any(told):
        told = ["no kubelet has taken it yet" if not status.get("startTime") else "it is prepared"]
    return ": ".join(it for it in told if it)


@dataclass
class Log:
    """A pod's log, each line once, though it is asked for again and again."""

    #: Before each line.
    head: str
    write: Callable[[bytes], None]
    _last: str = ""
    _rest: bytes = b""

    @property
    def since(self) -> dict[str, str]:
        """From when on it is asked for: seconds are the finest that the API knows."""
        return {"sinceTime": f"{self._last[:19]}Z"} if self._last else {}

    def take(self, piece: bytes) -> None:
        """What has come."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            stamp, _, text = line.partition(b" ")
            when = stamp.decode(errors="replace")
            if _moment(when) > _moment(self._last):
                self._last = when
                self.write(self.head.encode() + text + b"\n")

    def cut(self, write: bool) -> None:
        """It was broken off, and half a line comes whole the next time; or it was the last."""
        if write and self._rest:
            self.take(b"\n")
        self._rest = b""


def _moment(stamp: str) -> tuple[str, str]:
    """In order, though ends of zeros are left out: 2026-01-01T00:00:00.5Z."""
    second, _, part = stamp.removesuffix("Z").partition(".")
    return second, part.ljust(9, "0")


def say(line: str) -> None:
    """To the job's output."""
    sys.stdout.flush()
    print(f"slurmstack-pod: {line}", file=sys.stderr, flush=True)


def main(words: list[str]) -> int:
    """Run a job file: ``slurmstack-pod INTERPRETER FILE``, as the kernel calls it."""
    if len(words) != 2:
        print("slurmstack-pod is the interpreter of job files: slurmstack-job submit FILE",
              file=sys.stderr)  # fmt: skip
        return NOT_RUN
    told, job = site(), os.environ.get("SLURM_JOB_ID", "")
    step = Step(told)
    if told.results and job.isdecimal():
        restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
        number = int(restarts) if restarts.isdecimal() else 0
        step.results = Results(Path(told.results), int(job), number)

    def end(number: int, _: FrameType | None) -> None:
        # Not here: what is interrupted may hold the event's lock.
        threading.Thread(target=step.ended.set).start()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    return step.run(Path(words[1]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
