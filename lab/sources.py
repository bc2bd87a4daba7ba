"""Where this machine gets Debian packages from, as its own apt has it.

`apt-get indextargets` reads both the one-line and the deb822 format of sources, so this module
does not. On a machine without Debian sources (Ubuntu), mmdebstrap's own default is taken.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from lab.errors import LabError
from lab.system import run

SUITE = "trixie"
FORMAT = "$(SITE)\t$(REPO_URI)\t$(ORIGIN)\t$(LABEL)\t$(COMPONENT)"
OVERRIDE = "LAB_MIRROR"


@dataclass(frozen=True)
class Mirrors:
    """The archive and its security updates, each as an http(s) address without a last slash."""

    archive: str
    security: str


def parse_index_targets(text: str) -> tuple[str | None, str | None]:
    """Archive and security address from `apt-get indextargets --format FORMAT`, where named.

    Fields that apt cannot fill stay as the placeholder, so only what a downloaded Release file
    says is Debian's own (Origin and Label) is taken.
    """
    archives: dict[str, str] = {}
    for line in text.splitlines():
        fields = line.split("\t")
        if len(fields) != 5:
            continue
        _site, address, origin, label, component = fields
        if origin != "Debian" or component != "main" or urlsplit(address).scheme[:4] != "http":
            continue
        archives.setdefault(label, address.rstrip("/"))
    return archives.get("Debian"), archives.get("Debian-Security")


def parse_one_line_sources(text: str) -> tuple[str | None, str | None]:
    """Archive and security address from `deb ADDRESS SUITE main` lines, as mmdebstrap writes."""
    archive = security = None
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^]]*\]\s+)?(https?://\S+)\s+(\S+)\s", line)
        if not match:
            continue
        if match[2].endswith("-security"):
            security = security or match[1].rstrip("/")
        else:
            archive = archive or match[1].rstrip("/")
    return archive, security


def parse_override(text: str) -> Mirrors:
    """`ARCHIVE` or `ARCHIVE,SECURITY`; a mirror of both keeps them side by side."""
    parts = [part.strip().rstrip("/") for part in text.split(",")]
    if len(parts) > 2 or not all(urlsplit(part).netloc for part in parts):
        raise LabError(
            f"{OVERRIDE}={text!r} is not an address: write {OVERRIDE}=http://HOST/debian, "
            "with ,http://HOST/debian-security behind it where that lies elsewhere"
        )
    archive = parts[0]
    return Mirrors(archive, parts[1] if len(parts) == 2 else f"{archive}-security")


def find_mirrors(apt_options: Sequence[str] = ()) -> Mirrors:
    """The mirrors to take packages from. Raises `LabError` where none can be found."""
    override = os.environ.get(OVERRIDE, "")
    if override:
        return parse_override(override)
    _refuse_proxy()
    archive, security = parse_index_targets(_index_targets(apt_options))
    if archive is None or security is None:
        default_archive, default_security = parse_one_line_sources(_mmdebstrap_default())
        archive, security = archive or default_archive, security or default_security
    if archive is None or security is None:
        raise LabError(
            "this machine's apt sources name no Debian mirror: say which with "
            f"{OVERRIDE}=http://HOST/debian make lab"
        )
    return Mirrors(archive, security)


def acquire_options() -> dict[str, str]:
    """How this machine's apt judges the age of an archive; its nodes judge alike."""
    names = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")
    answer = run(["apt-config", "dump", "--format=%f%t%v%n", *names]).stdout
    pairs = (line.split("\t", 1) for line in answer.splitlines() if "\t" in line)
    return {name: value for name, value in pairs if name in names and value}


def _index_targets(apt_options: Sequence[str]) -> str:
    command = ["apt-get", *apt_options, "indextargets", "--format", FORMAT, "Identifier: Packages"]
    answer = run(command).stdout
    if "\tDebian\t" not in answer and "$(ORIGIN)" in answer:
        # No Release file was downloaded yet, so apt cannot tell whose archive it is.
        run(["apt-get", *apt_options, "update"], timeout=300, check=False)
        answer = run(command).stdout
    return answer


def _refuse_proxy() -> None:
    answer = run(["apt-config", "dump", "--format=%f %v%n", "Acquire::http::Proxy"]).stdout
    for line in answer.splitlines():
        address = line.partition(" ")[2].strip()
        if address and address != "DIRECT":
            raise LabError(
                "this machine's apt goes through a proxy, which the lab's mirror cannot: name a "
                f"mirror that is reached without it, {OVERRIDE}=http://HOST/debian make lab"
            )


def _mmdebstrap_default() -> str:
    with tempfile.TemporaryDirectory() as folder:
        # The hook ends mmdebstrap as soon as it has written its sources; nothing is downloaded.
        command = ["mmdebstrap", "--variant=extract", SUITE, f"{folder}/root"]
        hook = '--setup-hook=cat "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*; exit 1'
        done = run([*command, hook], check=False)
    return done.stdout + done.stderr
