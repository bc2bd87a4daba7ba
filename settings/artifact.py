"""Files that the cluster is made of and that no package source has: where, and which bytes."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import unquote, urlsplit

from pydantic import field_validator

from settings.base import SlurmObject, matching
from settings.problems import refused

#: NAME_VERSION_ARCHITECTURE.deb, as every Debian package file is called.
_DEB = re.compile(r"([a-z0-9][a-z0-9+.-]+)_([0-9][A-Za-z0-9.+~-]*)_([a-z0-9-]+)\.deb")


#: Stands for a sum that the site has yet to put in: no known file has it, so none is ever taken.
OPEN = "0" * 64


class Artifact(SlurmObject):
    """A file by URL and SHA-256. It is fetched once, to the package host, and nothing is unpacked
    or installed from it unless its bytes are the declared ones."""

    url: str
    sha256: Annotated[
        str, matching(r"[0-9a-f]{64}", "a SHA-256 of 64 hexadecimal digits, as sha256sum prints it")
    ]

    @field_validator("url")
    @classmethod
    def _plain(cls, value: str) -> str:
        if "@" in value:
            raise refused(
                "a URL without a user or password (apt's auth.conf on the package host has the "
                "place for them)",
                "one with @, which is not shown",
            )
        if not re.fullmatch(r"(https?://|file:///)[A-Za-z0-9._/:%+=~?&-]+", value):
            raise ValueError(
                "an http, https or file URL without spaces, quotes or a user (apt's auth.conf on "
                "the package host has the place for a password)"
            )
        if not urlsplit(value).path.rstrip("/"):
            raise ValueError("the URL of a file")
        return value

    @property
    def name(self) -> str:
        """The file's name."""
        return unquote(urlsplit(self.url).path).rsplit("/", 1)[-1]


class PackageFile(Artifact):
    """A Debian package file; its name says which package it is, at which version."""

    @field_validator("url")
    @classmethod
    def _deb(cls, value: str) -> str:
        if not _DEB.fullmatch(unquote(urlsplit(value).path).rsplit("/", 1)[-1]):
            raise ValueError("the URL of a package file, NAME_VERSION_ARCHITECTURE.deb")
        return value

    @property
    def package(self) -> str:
        return self._part(1)

    @property
    def version(self) -> str:
        return self._part(2)

    def _part(self, number: int) -> str:
        match = _DEB.fullmatch(self.name)
        assert match is not None  # checked when it was read
        return match[number]
