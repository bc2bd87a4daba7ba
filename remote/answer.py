"""What the applier answers: lines in a frame on its stdout, a kind first in each."""

import json
import re

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from remote.framing import BEGIN, FrameError, within_frame


class AnswerError(ValueError):
    """stdout of a command that should have ended in an answer, but did not."""


class _Model(BaseModel):
    # A newer applier may say more than this program knows.
    model_config = ConfigDict(frozen=True, extra="ignore")


class FileState(_Model):
    """A file as read back from the node's disk."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    changed: bool = False


class Answer(_Model):
    """State of one role on one node after a run; `changed`, `commands` and `actions` are about
    the run itself."""

    node: str
    role: str
    #: When the node said it, by its own clock (UTC, ISO 8601); None from an applier that was older.
    time: str | None = None
    changed: bool = False
    files: dict[str, FileState] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    units: dict[str, str] = Field(default_factory=dict)
    commands: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    facts: dict[str, str] = Field(default_factory=dict)


def parse_answer(stdout: str) -> Answer:
    """The answer in `stdout`; lines of login scripts and the like around it are passed over.
    Raises `AnswerError`, which quotes no more than one line."""
    if BEGIN not in stdout:
        earlier = _earlier_answer(stdout)
        if earlier is not None:
            return earlier
    try:
        return _read(within_frame(stdout))
    except FrameError as error:
        raise AnswerError(str(error)) from None


def _read(text: str) -> Answer:
    document: dict[str, object] = {}
    files: dict[str, dict[str, object]] = {}
    named: dict[str, dict[str, str]] = {"package": {}, "unit": {}, "fact": {}}
    listed: dict[str, list[str]] = {"command": [], "action": []}
    for line in text.split("\n"):
        kind, _, rest = line.partition(" ")
        if kind in ("time", "node", "role"):
            document[kind] = rest
        elif kind == "changed":
            document["changed"] = rest == "true"
        elif kind == "file" and (match := re.fullmatch(r"(\S*) (changed|same) (\S+)", rest)):
            files[match[3]] = {"sha256": match[1], "changed": match[2] == "changed"}
        elif kind in named and (match := re.fullmatch(r"[ \t]*([^ \t]+)[ \t]*(.*)", rest)):
            named[kind][match[1]] = match[2]
        elif kind in listed:
            listed[kind].append(rest)
    return _model(
        {
            **document,
            "files": files,
            "packages": named["package"],
            "units": named["unit"],
            "facts": named["fact"],
            "commands": listed["command"],
            "actions": listed["action"],
        }
    )


def _earlier_answer(stdout: str) -> Answer | None:
    """The answer as appliers before 0.2 gave it, a JSON document on one line: it stands in the
    state until a role is applied again."""
    for line in reversed(stdout.split("\n")):
        if not line.startswith("{"):
            continue
        try:
            return _model(json.loads(line))
        except json.JSONDecodeError:
            continue
    return None


def _model(document: object) -> Answer:
    try:
        return Answer.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise AnswerError(f"answer not understood: {place}: {first['msg']}") from None
