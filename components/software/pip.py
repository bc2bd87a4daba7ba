"""Where pip finds the packages of a lock file: alike in environments of nodes and in images."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from settings.software import PythonEnvironment

#: Who may have signed an index's certificate, as the host that installs has it
#: (update-ca-certificates(8)).
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def source(environment: PythonEnvironment) -> str:
    """pip's options for it. From an index without TLS it would take nothing by itself; the lock
    file's hashes say more than a certificate."""
    index = environment.index
    if "://" not in index:
        return f"--no-index --find-links {index}"
    address = urlsplit(index)
    trusted = f" --trusted-host {address.netloc}" if address.scheme == "http" else ""
    return f"--index-url {index}{trusted}"


def packages(environments: Iterable[PythonEnvironment]) -> set[str]:
    """Packages of the distribution without which a host asks none of their indexes."""
    over_tls = any(it.index.startswith("https://") for it in environments)
    return {"ca-certificates"} if over_tls else set()
