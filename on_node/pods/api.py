"""Kubernetes' API by plain HTTP: bounded in time, and with errors that say whose fault it is."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

#: Who owns the fields that are applied (server-side apply).
_MANAGER = "slurmstack"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token is for this server alone."""

    def redirect_request(self, *_: object) -> None:
        return None


class Away(Exception):
    """It cannot be told at present; why. What was asked may have come to pass all the same."""


class Refused(Exception):
    """The API says no, in its own words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class Api:
    """One server, spoken to with one token."""

    server: str
    ca: str
    token: str
    #: Seconds for a connection, and for each answer.
    seconds: float = 10

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        handlers: list[urllib.request.BaseHandler] = [
            _NoRedirect(),
            urllib.request.ProxyHandler({}),
        ]
        try:
            trust = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise Away(f"{self.ca}: {error}") from None
        return urllib.request.build_opener(*handlers, urllib.request.HTTPSHandler(context=trust))

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """An object."""
        return self._call("GET", path, query)

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object; `path` is that of its kind."""
        return self._call("POST", path, {}, body)

    def apply(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """See that an object is so."""
        query: dict[str, str | int] = {"fieldManager": _MANAGER, "force": "true"}
        # JSON is YAML.
        return self._call("PATCH", path, query, body, "application/apply-patch+yaml")

    def delete(self, path: str, grace: int, uid: str | None = None) -> None:
        """Have an object end within `grace` seconds; one that is gone already is well."""
        options: dict[str, Any] = {"gracePeriodSeconds": grace}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            self._call("DELETE", path, {}, options)
        except Refused as error:
            # 409: another one has its name by now.
            if error.status not in (404, 409):
                raise

    @contextmanager
    def stream(self, path: str, quiet: float, **query: str | int) -> Iterator[Iterator[bytes]]:
        """The bytes of an answer as they come; one that says nothing for `quiet` seconds ends.

        Raises:
            Away, Refused: also while it is read.
        """
        with self._request("GET", path, query, None, "", quiet) as answer:
            yield self._bytes(answer)

    def _bytes(self, answer: http.client.HTTPResponse) -> Iterator[bytes]:
        try:
            while piece := answer.read1(65536):
                yield piece
        except TimeoutError:
            return
        except (http.client.HTTPException, OSError) as error:
            raise Away(f"{self.server}: {_words(error)}") from None

    def _call(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str | int],
        body: Mapping[str, Any] | None = None,
        kind: str = "application/json",
    ) -> dict[str, Any]:
        try:
            with self._request(verb, path, query, body, kind, self.seconds) as answer:
                told: dict[str, Any] = json.loads(answer.read())
                return told
        except (http.client.HTTPException, OSError, ValueError) as error:
            raise Away(f"{self.server}: {_words(error)}") from None

    def _request(
        self,
        verb: str,
        path: str,
        query: Mapping[str, str | int],
        body: Mapping[str, Any] | None,
        kind: str,
        seconds: float,
    ) -> http.client.HTTPResponse:
        request = urllib.request.Request(
            f"{self.server}{path}{'?' + urlencode(query) if query else ''}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {self.token}", "Accept": "application/json"},
            method=verb,
        )
        if body is not None:
            request.add_header("Content-Type", kind)
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=seconds)
            return answer
        except urllib.error.HTTPError as error:
            with error:
                status, words = error.code, self._said(error)
        except (http.client.HTTPException, OSError) as error:
            raise Away(f"{self.server}: {_words(error)}") from None
        if status >= 500 or status == 429:
            raise Away(words)
        raise Refused(status, words)

    def _said(self, error: urllib.error.HTTPError) -> str:
        try:
            said = error.read()
        except (http.client.HTTPException, OSError):
            said = b""
        try:
            words = str(json.loads(said)["message"])
        except (ValueError, KeyError, TypeError):
            words = said.decode(errors="replace")[:200] or error.reason
        return f"{self.server} answers {error.code}: {' '.join(words.split())}"


def _words(error: BaseException) -> str:
    """What happened, without what wraps it."""
    reason = getattr(error, "reason", None)
    return str(reason if isinstance(reason, BaseException) else error)
