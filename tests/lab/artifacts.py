"""What the container tests deploy: the real artifacts where a folder with them is given, else
stand-ins that take the same route.

``SLURMSTACK_TEST_ARTIFACTS`` names a folder with ``enroot_VERSION_ARCH.deb`` (and, if wanted,
``enroot+caps_…``) and ``pyxis-VERSION.tar.gz``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STAND_IN = Path(__file__).parent / "stand_in"
#: Where the files lie on the package host.
PLACE = "/srv/artifacts"


@dataclass(frozen=True)
class Artifacts:
    """Files for the package host, and whether they are the real ones."""

    enroot: tuple[Path, ...]
    pyxis: Path
    real: bool

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.enroot, self.pyxis)

    @property
    def pyxis_version(self) -> str:
        match = re.search(r"(\d+\.\d+\.\d+)", self.pyxis.name)
        assert match, f"{self.pyxis}: no version in its name"
        return match[1]

    def settings(self) -> dict[str, Any]:
        """``slurmstack:enrootPyxis`` with these files."""
        return {
            "enroot": {"packages": [entry(file) for file in self.enroot]},
            "pyxis": {"version": self.pyxis_version, "archive": entry(self.pyxis)},
        }


def entry(file: Path) -> dict[str, str]:
    """URL on the package host, and checksum."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"url": f"file://{PLACE}/{file.name}", "sha256": digest}


def find(folder: Path) -> Artifacts:
    """The artifacts; stand-ins are made in the folder."""
    given = os.environ.get("SLURMSTACK_TEST_ARTIFACTS")
    if given:
        place = Path(given)
        enroot = tuple(sorted(place.glob("enroot*_*.deb")))
        pyxis = sorted(place.glob("pyxis-*.tar*"))
        assert enroot, f"{place} has no enroot_*.deb"
        assert pyxis, f"{place} has no pyxis-*.tar.gz"
        return Artifacts(enroot, pyxis[-1], real=True)
    return Artifacts((enroot_stand_in(folder),), pyxis_stand_in(folder), real=False)


def enroot_stand_in(folder: Path) -> Path:
    """A package named enroot, so that what is done with the real one is done with it."""
    root = folder / "enroot"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc/enroot").mkdir(parents=True)
    program = root / "usr/bin/enroot"
    program.write_text("#!/bin/sh\necho 'a stand-in for Enroot'\n")
    program.chmod(0o755)
    (root / "DEBIAN/control").write_text(
        "Package: enroot\nVersion: 3.5.0-1+standin\nArchitecture: all\nMaintainer: slurmstack\n"
        "Description: stand-in for Enroot in the lab's tests\n"
    )
    return _packed(root, folder / "enroot_3.5.0-1_all.deb")


def pyxis_stand_in(folder: Path, spoilt: bool = False) -> Path:
    """The stand-in plugin's source archive; `spoilt`, it does not compile."""
    source = folder / "pyxis-0.20.0"
    shutil.copytree(STAND_IN, source)
    if spoilt:
        (source / "pyxis.c").write_text("this is no C\n")
    archive = folder / "pyxis-0.20.0.tar.gz"
    subprocess.run(["tar", "-C", folder, "-czf", archive, source.name], check=True)
    return archive


def _packed(root: Path, file: Path) -> Path:
    command = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return file
