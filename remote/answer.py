"""What the applier answers: the one JSON document on its stdout."""

import json

from pydantic import BaseModel, ConfigDict, Field, ValidationError


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
    """The answer in `stdout`: its last line that is a JSON object; lines of login scripts and the
    like before it are passed over. Raises `AnswerError`, which quotes no more than one line."""
    for line in reversed(stdout.split("\n")):
        if not line.startswith("{"):
            continue
        try:
            return Answer.model_validate(json.loads(line))
        except json.JSONDecodeError:
            continue
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise AnswerError(f"answer not understood: {place}: {first['msg']}") from None
    last = stdout.strip().rpartition("\n")[2][:200]
    raise AnswerError(f"no answer of the applier in stdout, which ends in {last!r}")
