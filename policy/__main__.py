"""What Pulumi starts for `--policy-pack policy`: the rules as policies, all of them mandatory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Secret,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from policy import rules  # noqa: E402

#: URN → what was found readable in its inputs. Pulumi asks for remediations first, which alone are
#: given to see what is a secret, and then for violations.
_readable: dict[str, list[str]] = {}


def known(value: Any) -> Any:
    """Without what is not known before others have been applied: `up` is asked again."""
    if isinstance(value, Mapping):
        found = {key: _item(value, key) for key in value}
        return {key: known(part) for key, part in found.items() if part is not None}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [known(_item(value, index)) for index in range(len(value))]
    return value


def _item(value: Any, key: Any) -> Any:
    try:
        return value[key]
    except UnknownValueError:
        return None


def readable(value: Any) -> Any:
    """Without what is a secret."""
    if isinstance(value, Mapping):
        return {key: readable(part) for key, part in value.items() if not isinstance(part, Secret)}
    if isinstance(value, list):
        return [readable(part) for part in value if not isinstance(part, Secret)]
    return value


def of_commands(
    name: str, description: str, rule: Callable[[Mapping[str, Any]], Iterable[str]]
) -> ResourceValidationPolicy:
    """A rule about each command on a host."""

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        if args.resource_type.startswith(rules.REMOTE):
            for found in rule(known(args.props)):
                report(found)

    return ResourceValidationPolicy(name, description, validate, EnforcementLevel.MANDATORY)


def look_for_cleartext(args: ResourceValidationArgs) -> None:
    """Remediates nothing: a key that was made readable is to be made anew, by a person."""
    _readable[args.urn] = list(rules.cleartext(readable(args.props["__target"])))


def report_cleartext(args: ResourceValidationArgs, report: ReportViolation) -> None:
    # What nobody has looked at is not passed.
    for found in _readable.pop(args.urn, ["its inputs were not looked at for secrets"]):
        report(found)


def deletion(args: StackValidationArgs, report: ReportViolation) -> None:
    commands = (one for one in args.resources if one.resource_type.startswith(rules.REMOTE))
    for found in rules.deletion_guarded(str(known(one.props).get("stdin", "")) for one in commands):
        report(found)


def settings(_args: StackValidationArgs, report: ReportViolation) -> None:
    file = PROJECT / f"Pulumi.{os.environ['PULUMI_STACK'].rpartition('/')[2]}.yaml"
    if not file.exists():
        report(f"{file.name} is not there: nobody looked at its secrets")
        return
    document = yaml.safe_load(file.read_text()) or {}
    for found in rules.settings_encrypted(document.get("config") or {}):
        report(found)


PolicyPack(
    "slurmstack",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[
        of_commands("host-keys-pinned", "Host keys are pinned.", rules.host_keys_pinned),
        of_commands("logging-off", "No output of commands with stdin.", rules.logging_off),
        of_commands("guarded", "Controller and database keep jobs and state.", rules.guarded),
        StackValidationPolicy("deletion-guarded", "Nothing is destroyed below jobs.", deletion),
        StackValidationPolicy("settings-encrypted", "Secret settings are encrypted.", settings),
        ResourceValidationPolicy(
            "no-cleartext-secret",
            "Keys and passwords are secrets of the state.",
            report_cleartext,
            # Mandatory in effect; this level is asked for remediations, too.
            EnforcementLevel.REMEDIATE,
            remediate=look_for_cleartext,
        ),
    ],
)
