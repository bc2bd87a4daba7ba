"""A job file: a batch script of sbatch(1) with headers for Kubernetes, read strictly.

sbatch overlooks what it does not understand of a script: a header behind the first command, one
with a blank in front, a second value. Here each is a mistake, and all are told at once by line. No
value of a header gets into a shell, and none may look as if it should.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from on_node.kubernetes.places import RUNNER

#: Bytes; sbatch takes 4 MiB (max_script_size of SchedulerParameters, slurm.conf(5)).
MAX_SIZE = 1 << 20

#: Options of sbatch(1) 24.11 with a value, and their letters. Those are left out that act on the
#: command itself (--wait, --test-only, --wrap), for another user (--uid, --gid), with files of the
#: submitting host (--bcast, --bbf, --export-file) or on another cluster (--clusters).
WITH_VALUE: Mapping[str, str] = {
    "account": "A", "acctg-freq": "", "array": "a", "begin": "b", "chdir": "D", "comment": "",
    "constraint": "C", "container": "", "core-spec": "S", "cores-per-socket": "",
    "cpu-freq": "", "cpus-per-gpu": "", "cpus-per-task": "c", "deadline": "", "delay-boot": "",
    "dependency": "d", "distribution": "m", "error": "e", "exclude": "x", "export": "",
    "extra-node-info": "B", "gpu-bind": "", "gpu-freq": "", "gpus": "G", "gpus-per-node": "",
    "gpus-per-socket": "", "gpus-per-task": "", "gres": "", "gres-flags": "", "hint": "",
    "job-name": "J", "licenses": "L", "mail-type": "", "mail-user": "", "mem": "", "mem-bind": "",
    "mem-per-cpu": "", "mem-per-gpu": "", "mincpus": "", "nice": "", "nodefile": "F",
    "nodelist": "w", "nodes": "N", "ntasks": "n", "ntasks-per-core": "", "ntasks-per-gpu": "",
    "ntasks-per-node": "", "ntasks-per-socket": "", "open-mode": "", "output": "o",
    "partition": "p", "priority": "", "profile": "", "qos": "q", "reservation": "", "signal": "",
    "sockets-per-node": "", "switches": "", "thread-spec": "", "threads-per-core": "",
    "time": "t", "time-min": "", "tmp": "", "tres-bind": "", "tres-per-task": "", "wckey": "",
}  # fmt: skip
#: Options without one, or with one that may be left out.
FLAGS: Mapping[str, str] = {
    "contiguous": "", "exclusive": "", "hold": "H", "ignore-pbs": "", "kill-on-invalid-dep": "",
    "no-kill": "k", "no-requeue": "", "overcommit": "O", "oversubscribe": "s", "reboot": "",
    "requeue": "", "spread-job": "", "use-min-nodes": "",
}  # fmt: skip
_LETTERS = {letter: name for name, letter in {**WITH_VALUE, **FLAGS}.items() if letter}
#: Headers for Kubernetes.
KUBERNETES = ("IMAGE", "WORKDIR", "SCRIPT")

#: What a shell would act on. `&`, `|`, `*`, `?`, brackets and parentheses have a meaning of Slurm's
#: own in some options.
_SHELL = re.compile(r"[#$`;<>\\\"'!{}~\x00-\x1f\x7f]|&&|\|\|")
_WITH_OPERATORS = ("constraint", "dependency", "nodelist", "exclude", "array", "licenses", "gres")
_OPERATORS = re.compile(r"[&|*?()]")
#: Headers that a person means and sbatch does not read.
_ALMOST = re.compile(r"\s*#\s*(sbatch|k8s_\w+\s*=)", re.IGNORECASE)
#: distribution/reference v2: a host with a port or a point, a path, and a tag or a digest.
_IMAGE = re.compile(
    r"(?P<registry>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?)/"
    r"(?P<name>[a-z0-9]+(?:(?:\.|_|__|-+|/)[a-z0-9]+)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


@dataclass(frozen=True, order=True)
class Mistake:
    """What is wrong, and in which line; 0 where it is the whole file."""

    line: int
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.text}" if self.line else self.text


@dataclass(frozen=True)
class Image:
    """An image in a registry."""

    registry: str
    name: str
    #: A tag or a digest.
    reference: str


@dataclass(frozen=True)
class JobFile:
    """What could be read of a file."""

    text: str
    #: Option of sbatch by its long name → value (none: an empty text), and its line.
    options: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    #: Header for Kubernetes without K8S_ → value, and its line.
    kubernetes: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def value(self, option: str) -> str | None:
        """An option's value; None where it is not there."""
        return self.options[option][0] if option in self.options else None

    def line(self, option: str) -> int:
        """An option's line; 0 where it is not there."""
        return self.options[option][1] if option in self.options else 0

    def as_pod(self) -> JobFile:
        """The file whose commands run in a pod: its interpreter is ours, which hands its own on."""
        if self.image is None or self.text.startswith(f"#!{RUNNER}"):
            return self
        return replace(self, text=f"#!{RUNNER} {self.text.removeprefix('#!').lstrip(' ')}")

    @property
    def image(self) -> Image | None:
        """The image that it names; None where it names none, or no image."""
        return image_of(self.kubernetes.get("IMAGE", ("", 0))[0])


def image_of(text: str) -> Image | None:
    """The image that is meant; None where there is no such one, or neither tag nor digest."""
    match = _IMAGE.fullmatch(text)
    if match is None or not (match["digest"] or match["tag"]):
        return None
    return Image(match["registry"], match["name"], match["digest"] or match["tag"])


def read(content: bytes) -> tuple[JobFile, list[Mistake]]:
    """A file's headers, and all that is wrong with them."""
    if len(content) > MAX_SIZE:
        return JobFile(""), [Mistake(0, f"is larger than {MAX_SIZE} bytes")]
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        place = content[: error.start].count(b"\n") + 1
        return JobFile(""), [Mistake(place, f"byte {error.start + 1} is no UTF-8")]
    if not text.strip():
        return JobFile(""), [Mistake(0, "is empty")]
    if "\0" in text:
        place = text[: text.index("\0")].count("\n") + 1
        return JobFile(text), [Mistake(place, "a zero byte: this is no text")]
    options: dict[str, tuple[str, int]] = {}
    kubernetes: dict[str, tuple[str, int]] = {}
    mistakes = [*_form(text)]
    commands = 0
    for number, line in enumerate(text.split("\n"), 1):
        header = re.match(r"#(SBATCH|K8S_)", line)
        if header is None:
            if re.match(r"#(PBS|BSUB)\b", line) and not commands:
                mistakes.append(Mistake(number, "is of another scheduler: write #SBATCH"))
            elif _ALMOST.match(line) and not commands:
                mistakes.append(
                    Mistake(number, "is no header as it stands: write #SBATCH or #K8S_… in "
                                    "capitals, where the line starts, without a blank behind #")
                )  # fmt: skip
            elif line.strip() and not line.lstrip().startswith("#"):
                commands = commands or number
        elif commands:
            mistakes.append(
                Mistake(
                    number, f"is not read: sbatch stops at the first command, in line {commands}"
                )
            )
        elif header[1] == "SBATCH":
            mistakes += _sbatch(line, number, options)
        else:
            mistakes += _kubernetes(line, number, kubernetes)
    return JobFile(text, options, kubernetes), sorted(mistakes)


def _form(text: str) -> Iterator[Mistake]:
    if not text.startswith("#!"):
        yield Mistake(1, "expected an interpreter, such as #!/bin/bash")
    if "\r" in text:
        line = text[: text.index("\r")].count("\n") + 1
        yield Mistake(line, "has a carriage return: convert the file (dos2unix)")


def _sbatch(line: str, number: int, options: dict[str, tuple[str, int]]) -> Iterator[Mistake]:
    rest = line.removeprefix("#SBATCH")
    if rest and not rest[0].isspace():
        yield Mistake(number, "expected a blank behind #SBATCH")
        return
    try:
        words = shlex.split(rest)
    except ValueError:
        yield Mistake(number, "a quote is not closed")
        return
    comment = next((at for at, word in enumerate(words) if word.startswith("#")), None)
    if comment is not None and re.search("[\"'\\\\]", rest):
        yield Mistake(number, "quotes and a comment in one header: write the comment elsewhere")
        return
    words = words[:comment]
    if not words:
        yield Mistake(number, "expected an option, such as --partition=gpu")
    while words:
        name, value, mistake = _option(words)
        if mistake:
            yield Mistake(number, mistake)
            if not name:
                return
        elif name in options:
            yield Mistake(number, f"--{name} is in line {options[name][1]} already")
        else:
            options[name] = value, number
            if bad := _unsafe(name, value):
                yield Mistake(
                    number, f"--{name}: {bad!r} is nothing for a header: no shell reads it"
                )


def _option(words: list[str]) -> tuple[str, str, str]:
    """Takes the next option: its long name, its value, and what is wrong with it."""
    word = words.pop(0)
    if word.startswith("--"):
        name, equals, value = word[2:].partition("=")
        if name in FLAGS:
            return name, value, ""
        if name not in WITH_VALUE:
            return "", "", _unknown(f"--{name}", [f"--{it}" for it in (*WITH_VALUE, *FLAGS)])
        if not equals and words:
            value = words.pop(0)
    else:
        name, value = _LETTERS.get(word[1:2], ""), word[2:]
        if not word.startswith("-") or not name:
            return "", "", f"{word!r} is no option of sbatch; expected --NAME=VALUE"
        if name in FLAGS:
            return name, value, ""
        if not value and words:
            value = words.pop(0)
    return name, value, "" if value else f"--{name} has no value"


def _kubernetes(line: str, number: int, headers: dict[str, tuple[str, int]]) -> Iterator[Mistake]:
    match = re.fullmatch(r"#K8S_(\w*)\s*(=?)\s*(.*?)\s*", line)
    if match is None or not match[2] or not match[3]:
        yield Mistake(number, "expected #K8S_NAME=VALUE")
        return
    name, value = match[1], match[3]
    if name not in KUBERNETES:
        yield Mistake(number, _unknown(f"K8S_{name}", [f"K8S_{it}" for it in KUBERNETES]))
    elif name in headers:
        yield Mistake(number, f"K8S_{name} is in line {headers[name][1]} already")
    else:
        headers[name] = value, number
        if bad := _unsafe(name, value):
            yield Mistake(number, f"K8S_{name}: {bad!r} is nothing for a header: no shell reads it")
        elif name == "IMAGE":
            yield from _image(value, number)
        elif not value.startswith("/"):
            yield Mistake(number, f"K8S_{name}: expected a whole path; found {value}")


def _image(value: str, number: int) -> Iterator[Mistake]:
    match = _IMAGE.fullmatch(value)
    if match is None:
        yield Mistake(
            number,
            f"K8S_IMAGE: expected REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:…; found {value}",
        )
    elif not match["tag"] and not match["digest"]:
        yield Mistake(number, f"K8S_IMAGE: {value} names no tag or digest; expected {value}:TAG")


def _unsafe(name: str, value: str) -> str:
    """The first character that a shell would act on, or a text without any."""
    match = _SHELL.search(value)
    if match is None and name not in _WITH_OPERATORS:
        match = _OPERATORS.search(value)
    return match[0] if match else ""


def _unknown(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, 1, 0.7)
    return f"{word} is not known here" + (f"; is {close[0]} meant?" if close else "")
