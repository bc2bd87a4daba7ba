"""An image of a registry as what another one begins with: Skopeo fetches it, umoci unpacks it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from on_node.images import alone
from on_node.images.refused import Refused

#: Seconds in which a registry says what a name stands for.
_ASKED = 120
#: Where a login of Skopeo's outlasts a restart (containers-auth.json(5)).
_LOGINS = "/root/.config/containers/auth.json"
_TOLD = re.compile(r'\bmsg="((?:[^"\\]|\\.)*)"')
_SHUT = re.compile(r"unauthori[sz]ed|authentication required|not authorized|denied|no basic auth")
_UNKNOWN = re.compile(r"manifest unknown|name unknown|repository name not known|not found|\b404\b")


def unpacked(name: str, rootfs: Path, log: Path, lock: int) -> str:
    """Fetch an image and unpack it, as Enroot's import does.

    Args:
        name: as Enroot writes it, REGISTRY#IMAGE:TAG or with @DIGEST.
        rootfs: a folder that is made.
        log: gets what is said.
        lock: held meanwhile.

    Returns:
        The image in words, with the digest that its name stood for.

    Raises:
        Refused: it is not there, it is another one than was named, or the registry does not answer.
    """
    known = digest(name)
    place, whole = rootfs.with_name("base"), {**os.environ, "HOME": "/root"}
    repository = re.sub(r"(@sha256)?:[^:/]*$", "", reference(name))
    words = ["skopeo", "copy", "--quiet", f"docker://{repository}@{known}", f"oci:{place}:base"]
    what = f"docker://{name}"
    alone.run(words, f"{what} cannot be fetched", log, lock=lock, environment=whole)
    words = ["umoci", "raw", "unpack", "--image", f"{place}:base", str(rootfs)]
    alone.run(words, f"{what} cannot be unpacked", log, lock=lock)
    configured(rootfs, _configuration(place))
    shutil.rmtree(place)
    return what if name.endswith(known) else f"{what} ({known})"


def reference(name: str) -> str:
    """REGISTRY/IMAGE:TAG; as in Enroot, Docker Hub is meant where no registry is named."""
    registry, mark, image = name.rpartition("#")
    return f"{registry}/{image}" if mark else f"docker.io/{image}"


def digest(name: str) -> str:
    """Which image a name stands for now.

    Raises:
        Refused: that cannot be told, or is another one than was named.
    """
    words = ["skopeo", "inspect", "--raw", f"docker://{reference(name)}"]
    try:
        done = subprocess.run(
            words, capture_output=True, timeout=_ASKED, check=False,
            env={**os.environ, "HOME": "/root"},
        )  # fmt: skip
    except FileNotFoundError:
        raise Refused("skopeo is not on this host, which fetches docker:// images: run "
                      "pulumi up") from None  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Refused(f"docker://{name}: its registry says nothing in {_ASKED} s") from None
    if done.returncode != 0:
        raise Refused(f"docker://{name}: {why(reference(name), done.stderr.decode())}")
    found = f"sha256:{hashlib.sha256(done.stdout).hexdigest()}"
    _, mark, wanted = name.rpartition("@")
    if mark and found != wanted:
        raise Refused(f"docker://{name}: its registry has another image by that name: {found}")
    return found


def why(of: str, told: str) -> str:
    """Why Skopeo cannot say what an image is, and what to do.

    Args:
        of: REGISTRY/IMAGE:TAG.
        told: its words.
    """
    message = _TOLD.search(told)
    words = message[1].replace('\\"', '"') if message else " ".join(told.split())
    last, host = words[-300:], of.partition("/")[0]
    if _SHUT.search(words):
        login = f"skopeo login --authfile {_LOGINS} {host}"
        return f"its registry wants a login that may read it ({login}, root on this host): {last}"
    if _UNKNOWN.search(words):
        return f"its registry has no such image: {last}"
    return f"its registry cannot be asked: {last}"


def _configuration(layout: Path) -> dict[str, Any]:
    """What an image says of the containers that are made of it (the OCI's config.md)."""

    def blob(of: dict[str, Any]) -> dict[str, Any]:
        path = layout / "blobs" / str(of["digest"]).replace(":", "/")
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return told

    index: dict[str, Any] = json.loads((layout / "index.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = blob(blob(index["manifests"][0])["config"]).get("config") or {}
    return found


def configured(rootfs: Path, said: dict[str, Any]) -> None:
    """Variables, folder and entry point, where Enroot's import writes them (its src/docker.sh).

    Args:
        rootfs: the image's.
        said: Env, WorkingDir, Entrypoint and Cmd of its configuration.
    """
    folder = said.get("WorkingDir") or "/"
    entry = shlex.join(said.get("Entrypoint") or [])
    command = shlex.join(said.get("Cmd") or ([] if entry else ["/bin/sh"]))
    here = shlex.quote(folder)
    texts = {
        "environment": "".join(f"{line}\n" for line in said.get("Env") or []),
        "fstab": "",
        "rc": f"mkdir -p {here} 2> /dev/null\ncd {here} && unset OLDPWD || exit 1\n\n"
              f"if [ $# -gt 0 ]; then\n    exec {entry} \"$@\"\nelse\n"
              f"    exec {entry} {command}\nfi\n",
    }  # fmt: skip
    etc = rootfs / "etc"
    etc.mkdir(exist_ok=True, parents=True)
    for name, text in texts.items():
        path = etc / name
        # What a layer has there may point anywhere.
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")
        # None of them tells how old the image is.
        os.utime(path, (0, 0))
