"""What the applier answers when it compares: lines in a frame, a section for each bundle."""

from __future__ import annotations

from dataclasses import dataclass, field

from remote.answer import AnswerError
from remote.framing import END, FrameError, within_frame


@dataclass(frozen=True)
class Difference:
    """One thing that is other than its bundle says."""

    role: str
    #: role, package, group, user, directory, file, link, absent, command or unit.
    kind: str
    name: str
    #: What was found, and what is wanted instead.
    found: str
    #: A unified diff, from what was deployed to what is there; of no file that is not everybody's.
    diff: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What a node said of the bundles that it was asked about, in their order."""

    node: str
    #: By the node's clock, UTC.
    time: str
    #: Role → what differs; a role in which nothing does has none.
    roles: dict[str, list[Difference]] = field(default_factory=dict)
    #: Role → why it could not be compared.
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def differences(self) -> list[Difference]:
        return [difference for found in self.roles.values() for difference in found]


def parse_comparison(stdout: str) -> Comparison:
    """The answer in `stdout`; what is printed around it is passed over. Raises `AnswerError`, which
    quotes no more than one line."""
    try:
        return read_comparison(within_frame(stdout))
    except FrameError as error:
        raise AnswerError(str(error)) from None


def read_comparison(text: str) -> Comparison:
    """The answer that `text` begins with. Raises `AnswerError`."""
    heads: dict[str, str] = {"node": "", "time": ""}
    roles: dict[str, list[Difference]] = {}
    failed: dict[str, str] = {}
    lines: dict[int, list[str]] = {}
    role = ""
    for line in answered(text)[0].split("\n"):
        word, _, rest = line.partition(" ")
        if line.startswith("  "):
            if roles.get(role):
                lines.setdefault(id(roles[role][-1]), []).append(line[2:])
        elif word in heads:
            heads[word] = rest
        elif word == "role":
            role = rest
            roles[role] = []
        elif word == "failed":
            failed[role] = rest
        elif word == "differs" and role:
            kind, _, what = rest.partition(" ")
            name, _, found = what.partition(" ")
            roles[role].append(Difference(role, kind, name, found))
    if not heads["node"]:
        raise AnswerError("answer not understood: it names no node")
    whole = {
        role: [
            Difference(one.role, one.kind, one.name, one.found, tuple(lines.get(id(one), ())))
            for one in found
        ]
        for role, found in roles.items()
    }
    return Comparison(heads["node"], heads["time"], whole, failed)


def answered(text: str) -> tuple[str, str]:
    """The answer, and what a script printed after it: its frame may stand inside another's."""
    answer, _, rest = text.partition(f"\n{END}\n")
    return answer, rest
