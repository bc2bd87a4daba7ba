"""Tokens and the REST API: keys, certificates, ports and names that go together."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import SecretStr

from settings import jwt as tokens
from settings import rest as api
from settings.checks.draft import Draft
from settings.problems import Problem


def jwt(draft: Draft) -> Iterator[Problem]:
    """Keys that are there twice, and parameters that follow from the key ``jwt``."""
    setting = draft.part("jwt", tokens.Jwt)
    if setting is None:
        return
    yield from tokens.problems(setting, draft.path("jwt"))
    for name in ("AuthAltTypes", "AuthAltParameters"):
        if getattr(draft.slurm, name) is not None:
            where = draft.path(f"slurm.{name}")
            yield Problem(where, f"nothing, as {draft.path('jwt')} gives it", "a value")


def rest(draft: Draft) -> Iterator[Problem]:
    """The API needs tokens, and its certificate a key, a name and a time that fit."""
    path, key_path = draft.path("rest"), draft.path("restTlsKey")
    if "rest" in draft.raw and "jwt" not in draft.raw:
        yield Problem(draft.path("jwt"), f"tokens, which {path} needs", "nothing")
    if "restTlsKey" in draft.raw and "rest" not in draft.raw:
        yield Problem(path, f"a certificate for {key_path}", "nothing")
    setting, key = draft.part("rest", api.Rest), draft.part("rest_tls_key", SecretStr)
    hosts, roles = draft.hosts or {}, draft.roles
    if setting is not None and roles is not None and roles.controller in hosts:
        names = api.names(setting, roles.controller, hosts[roles.controller].address)
        # A key that cannot be read is reported already.
        if key is not None or "restTlsKey" not in draft.raw:
            yield from api.problems(setting, key, names, path, key_path)
