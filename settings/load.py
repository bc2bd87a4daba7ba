"""Reading the stack configuration: every mistake in one report, before anything is contacted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, get_args, get_origin

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env
from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from settings import mistakes
from settings.accounting import read_password
from settings.checks import cross_check
from settings.checks.directory import with_accounts
from settings.excluded import put_aside
from settings.hostlist import pair
from settings.kubernetes import read_token
from settings.mistakes import unknown_key
from settings.model import MungeKeySetting, Settings
from settings.monitoring import read_password as read_hashed_password
from settings.monitoring import read_secret
from settings.parameters import nearest
from settings.problems import Problem, SettingsError
from settings.rest import read_key
from settings.sssd import read_bind_password

#: Prefixes of keys that are for Pulumi itself and for the providers in use.
_OTHER_PROGRAMS = ("pulumi", "command", "random")

#: Keys whose value is never quoted in a report → attribute, reader, and what is expected.
_SECRET_KEYS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "directoryBindPassword": (
        "directory_bind_password",
        read_bind_password,
        "1 to 256 characters of ASCII on one line",
    ),
    "kubernetesToken": ("kubernetes_token", read_token, "a token of the API's, of one word"),
    "mungeKey": (
        "munge_key",
        MungeKeySetting.read,
        "a munge key of 32 to 1024 bytes, raw or base64",
    ),
    "restTlsKey": (
        "rest_tls_key",
        read_key,
        "an RSA or EC private key in PEM, without a passphrase",
    ),
    "accountingPassword": (
        "accounting_password",
        read_password,
        "16 to 64 letters, digits and ._~+/=:@%^*!?-",
    ),
    "monitoringPassword": (
        "monitoring_password",
        read_hashed_password,
        "12 to 72 characters of ASCII without blanks",
    ),
    "registryPassword": (
        "registry_password",
        read_hashed_password,
        "12 to 72 characters of ASCII without blanks",
    ),
}

#: Keys each of whose values is such a one.
_SECRET_TABLES = ("monitoringSecrets", "registrySecrets")


def load() -> Settings:
    """The current stack's settings.

    Raises:
        SettingsError: with all mistakes at once.
    """
    values = {**get_config_env(), **CONFIG.get()}
    return from_config(values, pulumi.get_project(), pulumi.get_stack())


def from_config(values: Mapping[str, Any], project: str, stack: str | None) -> Settings:
    """Settings from all of a stack's configuration, with the prefixes of its keys.

    Raises:
        SettingsError: with all mistakes at once.
    """
    raw = {
        key.removeprefix(f"{project}:"): structured(text)
        for key, text in values.items()
        if key.startswith(f"{project}:")
    }
    return parse(raw, project, stack, _misspelt_prefixes(values, project))


def structured(text: Any) -> Any:
    """Pulumi hands structured values over as JSON, scalars as they are."""
    if isinstance(text, str) and text[:1] in "{[":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _misspelt_prefixes(values: Mapping[str, Any], project: str) -> Iterator[Problem]:
    """Keys of no program, which Pulumi passes over in silence: with a prefix that is a slip of the
    project's name, or one that is nobody's before a key of ours."""
    keys = {to_camel(name) for name in Settings.model_fields}
    for key in values:
        prefix, colon, rest = key.partition(":")
        if not colon:
            prefix, rest = "", key
        if prefix == project or prefix in _OTHER_PROGRAMS:
            continue
        near = nearest(rest.partition(".")[0], keys)
        if near is not None or nearest(prefix, [project]):
            meant = f"{project}:{near or rest}"
            yield Problem(key, f"{meant}, the nearest key", "a key that nothing reads")


def parse(
    raw: Mapping[str, Any],
    project: str = "slurmstack",
    stack: str | None = None,
    further: Iterable[Problem] = (),
) -> Settings:
    """Settings from the stack's configuration values, by key without the project's prefix.

    Each key is validated by itself, then against the others, so that one mistake does not hide
    another.

    Args:
        raw: key → value.
        project: the prefix that keys have in the stack file.
        stack: whose file it is.
        further: mistakes in the file besides those in its values.

    Raises:
        SettingsError: with all mistakes at once.
    """
    problems: list[Problem] = [*further]
    parts: dict[str, Any] = {}
    names = {to_camel(name): name for name in Settings.model_fields}
    for key in raw:
        if key not in names:
            problems.append(
                Problem(f"{project}:{key}", unknown_key(key, sorted(names)), "an unknown key")
            )
    for key, name in names.items():
        path = f"{project}:{key}"
        info = Settings.model_fields[name]
        if key not in raw:
            if info.is_required():
                problems.append(Problem(path, "a value", "nothing"))
            continue
        if key in _SECRET_KEYS:
            _secret(key, raw[key], path, parts, problems)
            continue
        if key in _SECRET_TABLES:
            parts[name] = _secrets(raw[key], path, problems)
            continue
        value = _hosts(raw[key], path, problems) if key == "hosts" else raw[key]
        parts[name] = _validated(info.annotation, value, path, problems)
    parts = {name: part for name, part in parts.items() if part is not None}
    problems += cross_check(parts, raw, project)
    problems += put_aside(parts, f"{project}:excluded")
    with_accounts(parts)
    if problems:
        raise SettingsError(sorted(problems, key=lambda problem: problem.path), stack)
    return Settings(**parts)


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)


def _validated(annotation: Any, value: Any, path: str, problems: list[Problem]) -> Any:
    """A value of this type, or None and its mistakes among the problems.

    Of a table or a list of things, those that are right come through: what depends on them is
    still checked.
    """
    arguments = get_args(annotation)
    if get_origin(annotation) is dict and isinstance(value, Mapping):
        checked = {}
        for key, item in value.items():
            where, below = f"{path}.{key}", list[Problem]()
            name = _validated(arguments[0], str(key), where, problems)
            checked[name] = _validated(arguments[1], item, where, below)
            # A name that is none has been reported; what is wrong below it is told, too.
            problems += [it for it in below if name is not None or it.path != where]
        return {key: it for key, it in checked.items() if key is not None and it is not None}
    if get_origin(annotation) is tuple and isinstance(value, list):
        return tuple(
            item
            for index, entry in enumerate(value)
            if (item := _validated(arguments[0], entry, f"{path}[{index}]", problems)) is not None
        )
    try:
        return _adapter(annotation).validate_python(value)
    except ValidationError as error:
        problems += mistakes.problems(path, annotation, value, error)
        return None


def _secret(
    key: str, value: Any, path: str, parts: dict[str, Any], problems: list[Problem]
) -> None:
    """Read a secret; what is wrong with it is said without quoting it."""
    name, read, expected = _SECRET_KEYS[key]
    try:
        parts[name] = read(str(value))
    except ValueError as error:
        problems.append(Problem(path, expected, str(error)))


def _secrets(value: Any, path: str, problems: list[Problem]) -> dict[str, SecretStr] | None:
    """A table of secrets, or None; what is wrong with one is said without quoting it."""
    if not isinstance(value, Mapping):
        problems.append(Problem(path, "a table of names and secrets", "something else"))
        return None
    table = {}
    for name, text in sorted(value.items()):
        try:
            table[name] = read_secret(str(name), text)
        except ValueError as error:
            problems.append(Problem(f"{path}.{name}", "a secret of one word", str(error)))
    return table


def _hosts(value: Any, path: str, problems: list[Problem]) -> Any:
    """Expand ``cn[01-64]: 10.0.0.[1-64]`` to one entry a host, and find what is named twice."""
    if not isinstance(value, Mapping):
        return value
    hosts: dict[str, Any] = {}
    by_address: dict[str, str] = {}
    for names, entry in value.items():
        fields = {"address": entry} if isinstance(entry, str) else entry
        if not isinstance(fields, Mapping) or not isinstance(fields.get("address"), str):
            hosts[str(names)] = fields
            continue
        try:
            pairs = pair(str(names), fields["address"])
        except ValueError as error:
            problems.append(Problem(f"{path}.{names}", str(error), f"{names}: {fields['address']}"))
            continue
        for name, address in pairs:
            if name in hosts:
                problems.append(Problem(f"{path}.{names}", "each name once", f"{name} again"))
            if address in by_address:
                problems.append(
                    Problem(
                        f"{path}.{names}",
                        "each address once",
                        f"{address} for {name} and for {by_address[address]}",
                    )
                )
            by_address[address] = name
            hosts[name] = {**fields, "address": address}
    return hosts
