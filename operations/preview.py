"""What the engine would do, as bundles: those that nodes hold, and those that they are to get.

Old ones come from the state, and what is done to which from ``pulumi preview --json``, which both
engines have; new ones are left for us by the program (``components.planned_bundles``), as engines
hide what is a secret. Of secret ones only the sealed form is kept (``remote.effects.sealed``).
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from pulumi import automation

from components.planned_bundles import FOLDER, SEALED
from operations.refused import Refused
from operations.stack import COMMAND, opened, reason, resources
from remote.answer import Answer, AnswerError, parse_answer
from remote.bundle import Bundle, BundleError
from remote.effects import sealed
from remote.reading import is_bundle, read

#: What a preview shows in the place of a secret, and of what others have to answer first.
_HIDDEN = ("[secret]", "04da6b54-80e4-46f7-96ec-b56ff0331ba9")
#: Pulumi's own variable for ``--policy-pack``.
_POLICY_PACK = "PULUMI_OPTION_POLICY_PACK"
#: Seconds for a preview; one of 1,000 resources takes a quarter of a minute.
_SECONDS = 600


class NoPreview(Refused):
    """The engine or the program could not say what would be done."""


@dataclass(frozen=True)
class Step:
    """One command on one node that is not as it was, or goes."""

    urn: str
    #: NODE-ROLE.
    name: str
    #: Pulumi's word: create, update, delete, replace.
    op: str
    parent: str = ""
    #: None: there is none, or it is no bundle.
    old: Bundle | None = None
    new: Bundle | None = None
    #: Inputs that differ: stdin, connection, …
    inputs: tuple[str, ...] = ()
    secret: bool = False
    #: Whether the new bundle is known before others have been applied.
    known: bool = True

    @property
    def digest(self) -> str:
        """A hash of what it would send."""
        sent = self.new.render() if self.new is not None else f"known: {self.known}"
        words = [self.urn, self.op, *sorted(self.inputs), sent]
        return sha256("\n".join(words).encode()).hexdigest()


@dataclass(frozen=True)
class State:
    """What stands in the state of the stack."""

    #: Name of a command, NODE-ROLE → its bundle, sealed where it is a secret.
    bundles: Mapping[str, Bundle]
    #: The same → what the node answered last.
    answers: Mapping[str, Answer]
    #: A hash of everything in it that a deployment changes.
    digest: str
    #: Those that are secrets.
    sealed: frozenset[str] = frozenset()
    #: URN → parent's URN.
    parents: Mapping[str, str] = field(default_factory=dict)


def state(workspace: automation.LocalWorkspace, stack: str) -> State:
    """The state of a stack, secrets opened and sealed again.

    Raises:
        NoSuchStack: it cannot be read.
    """
    held = resources(workspace, stack)
    bundles, answers, secrets = {}, {}, set()
    for resource in held:
        if resource["type"] != COMMAND or resource.get("delete"):
            continue
        name = resource["urn"].rpartition("::")[2]
        stdin = resource.get("inputs", {}).get("stdin")
        bundle = _bundle(stdin)
        if bundle is not None:
            bundles[name] = bundle
            if isinstance(stdin, dict):
                secrets.add(name)
        try:
            answers[name] = parse_answer(opened(resource.get("outputs", {}).get("stdout", "")))
        except AnswerError:
            continue
    kept = [
        {key: resource.get(key) for key in ("urn", "type", "id", "inputs", "outputs", "delete")}
        for resource in held
    ]
    digest = sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    parents = {resource["urn"]: resource.get("parent", "") for resource in held}
    return State(bundles, answers, digest, frozenset(secrets), parents)


def steps(stack: str, project: Path, before: State, *options: str) -> list[Step]:
    """What ``pulumi preview`` would do to nodes.

    Args:
        stack: its name.
        project: its folder.
        before: what stands in its state.
        options: further ones of ``pulumi preview``.

    Raises:
        NoPreview: with what the program or the engine said.
    """
    words = ["pulumi", "preview", "--json", "--non-interactive", "--stack", stack, *options]
    temporary = partial(tempfile.TemporaryDirectory, prefix="slurmstack-")
    with temporary() as folder, temporary() as beside:
        events = Path(beside, "events")
        if os.environ.get(_POLICY_PACK):  # which rule was broken, the document does not tell
            words += ["--event-log", str(events)]
        try:
            done = subprocess.run(
                words,
                cwd=project,
                # Without the second one Pulumi knows no --event-log.
                env=os.environ | {FOLDER: folder, "PULUMI_DEBUG_COMMANDS": "1"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NoPreview(f"stack {stack}: preview not done after {_SECONDS} s") from None
        told = _document(done.stdout)
        if done.returncode != 0 or told is None:
            why = _broken(events) or _errors(told) or reason(done.stderr)
            raise NoPreview(f"stack {stack}: {why}")
        left = {path.name: read(path.read_text()) for path in Path(folder).iterdir()}
    return list(steps_of(told.get("steps", []), before, left))


def steps_of(
    told: Iterable[Mapping[str, Any]], before: State, left: Mapping[str, Bundle]
) -> Iterable[Step]:
    """The steps of a preview that concern nodes.

    Args:
        told: its steps, as the engine printed them.
        before: what stands in the state.
        left: the bundles that the program left (``components.planned_bundles``), by their
            files' names.
    """
    for step in told:
        urn = str(step["urn"])
        if f"::{COMMAND}::" not in urn and f"${COMMAND}::" not in urn:
            continue
        name, op = urn.rpartition("::")[2], str(step["op"])
        goes = op.startswith("delete")
        old = before.bundles.get(name)
        new = None if goes else left.get(name) or left.get(name + SEALED)
        # The applier itself is no bundle, and its text is plain.
        stdin = (step.get("newState") or {}).get("inputs", {}).get("stdin")
        known = goes or new is not None or (old is None and stdin not in _HIDDEN)
        parent = (step.get("newState") or {}).get("parent") or before.parents.get(urn, "")
        secret = name + SEALED in left or name in before.sealed or stdin in _HIDDEN
        inputs = tuple(step.get("diffReasons") or ())
        yield Step(urn, name, op, str(parent), old, new, inputs, secret, known)


def _bundle(stdin: Any) -> Bundle | None:
    """The bundle in an input, sealed if that is a secret; None where it is none, or unknown."""
    text = opened(stdin)
    if not is_bundle(text):
        return None
    try:
        bundle = read(text)
    except BundleError:
        return None
    return sealed(bundle) if isinstance(stdin, dict) else bundle


def _document(stdout: str) -> dict[str, Any] | None:
    """The JSON document in an output, before which an engine may have printed a word."""
    start = stdout.find("{")
    try:
        document = json.JSONDecoder().raw_decode(stdout[start:])[0] if start >= 0 else None
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _broken(events: Path) -> str:
    """Which rules of policy packs are broken, each with what it says."""
    text = events.read_text() if events.exists() else ""
    found = [(_document(line) or {}).get("policyEvent") for line in text.splitlines()]
    rules = (
        f"{it['policyName']}: {' '.join(it['message'].split())}"
        for it in found
        if it and it["enforcementLevel"] != "advisory"
    )
    return "; ".join(dict.fromkeys(rules))


def _errors(told: Mapping[str, Any] | None) -> str:
    """What the program or the engine reported as errors, the engine's own summary left out."""
    found = [
        str(it["message"]).removeprefix("error: ").strip()
        for it in (told or {}).get("diagnostics", [])
        if it.get("severity") == "error"
    ]
    own = [text for text in found if text not in ("preview failed", "update failed")]
    return "; ".join(own or found)
