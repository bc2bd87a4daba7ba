"""What the container tests deploy: the real artifacts where a folder with them is given, else
stand-ins that take the same route.

``SLURMSTACK_TEST_ARTIFACTS`` names a folder with ``enroot_VERSION_ARCH.deb`` (and, if wanted,
``enroot+caps_…``), ``pyxis-VERSION.tar.gz`` and, if Apptainer and NHC are to be the real ones, too,
``apptainer_VERSION_ARCH.deb`` and ``lbnl-nhc_VERSION_all.deb``.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.conftest import RunningLab

STAND_IN = Path(__file__).parent / "stand_in"
#: Where the files lie on the package host.
PLACE = "/srv/artifacts"


@dataclass(frozen=True)
class Artifacts:
    """Files for the package host, and whether they are the real ones."""

    enroot: tuple[Path, ...]
    pyxis: Path
    apptainer: Path
    real: bool

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.enroot, self.pyxis, self.apptainer)

    @property
    def real_apptainer(self) -> bool:
        return "standin" not in self.apptainer.name

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
        apptainer = sorted(place.glob("apptainer_*.deb")) or [apptainer_stand_in(folder)]
        return Artifacts(enroot, pyxis[-1], apptainer[-1], real=True)
    return Artifacts(
        (enroot_stand_in(folder),), pyxis_stand_in(folder), apptainer_stand_in(folder), real=False
    )


def bring(lab: RunningLab, *files: Path) -> None:
    """Files onto the package host."""
    for file in files:
        lab.send("ctl", f"mkdir -p {PLACE} && cat >{PLACE}/{file.name}", file.read_bytes())


def enroot_stand_in(folder: Path) -> Path:
    """A package named enroot, so that what is done with the real one is done with it."""
    return package(folder, "enroot", "3.5.0-1+standin", "#!/bin/sh\necho 'a stand-in for Enroot'\n")


def apptainer_stand_in(folder: Path) -> Path:
    """A package named apptainer."""
    return package(folder, "apptainer", "1.4.2+standin", (STAND_IN / "apptainer.sh").read_text())


def grafana_stand_in(folder: Path) -> Path:
    """A package named grafana, with the files, the user and the unit that Grafana's own brings."""
    place = STAND_IN / "grafana"
    root = folder / "grafana"
    for name, path, mode in (
        ("grafana.py", "usr/share/grafana/bin/grafana", 0o755),
        ("grafana-server.service", "usr/lib/systemd/system/grafana-server.service", 0o644),
        ("postinst", "DEBIAN/postinst", 0o755),
    ):
        file = root / path
        file.parent.mkdir(parents=True)
        file.write_text((place / name).read_text())
        file.chmod(mode)
    (root / "etc/grafana").mkdir(parents=True)
    (root / "etc/grafana/grafana.ini").write_text("# the package's own\n")
    (root / "DEBIAN/conffiles").write_text("/etc/grafana/grafana.ini\n")
    return _built(folder, root, "grafana", "11.6.0+standin")


#: Package → file of stand_in/nvidia, and where it goes; Ubuntu's names.
_DRIVER: dict[str, tuple[tuple[str, str], ...]] = {
    "libnvidia-cfg1-570-server": (),
    "libnvidia-compute-570-server": (),
    "libnvidia-decode-570-server": (),
    "nvidia-compute-utils-570-server": (
        ("nvidia-persistenced.service", "usr/lib/systemd/system/nvidia-persistenced.service"),
        ("units-postinst.sh", "DEBIAN/postinst"),
    ),
    "nvidia-dkms-570-server-open": (
        ("dkms-postinst.sh", "DEBIAN/postinst"), ("dkms-prerm.sh", "DEBIAN/prerm"),
    ),
    "nvidia-fabricmanager-570": (
        ("nvidia-fabricmanager.service", "usr/lib/systemd/system/nvidia-fabricmanager.service"),
        ("units-postinst.sh", "DEBIAN/postinst"),
    ),
    "nvidia-headless-no-dkms-570-server-open": (),
    "nvidia-kernel-common-570-server": (
        ("modinfo.sh", "usr/local/sbin/modinfo"), ("modprobe.sh", "usr/local/sbin/modprobe"),
    ),
    "nvidia-kernel-source-570-server-open": (),
    "nvidia-utils-570-server": (("nvidia-smi.sh", "usr/bin/nvidia-smi"),),
}  # fmt: skip


#: The same of network drivers, files of stand_in/fabric; DOCA's names.
_NETWORK_DRIVERS: dict[str, tuple[tuple[str, str], ...]] = {
    "mlnx-ofed-kernel-dkms": (("modinfo.sh", "usr/local/sbin/modinfo"),),
    "mlnx-ofed-kernel-utils": (("ofed_info.sh", "usr/bin/ofed_info"),),
}


def driver_stand_ins(folder: Path, version: str) -> tuple[Path, ...]:
    """The packages of a driver of this version (of NVIDIA's), and of its fabric manager."""
    return tuple(_stand_ins(folder, "nvidia", _DRIVER, version, f"{version}-0standin1"))


def network_driver_stand_ins(folder: Path, version: str, modules: str = "") -> tuple[Path, ...]:
    """The packages of a release of network drivers; what is in them says `modules`, or the same."""
    return tuple(
        _stand_ins(folder, "fabric", _NETWORK_DRIVERS, modules or version, f"{version}+standin")
    )


def _stand_ins(
    folder: Path,
    place: str,
    contents: dict[str, tuple[tuple[str, str], ...]],
    version: str,
    packages: str,
) -> Iterator[Path]:
    """Package files at version `packages`, of files that say `version`."""
    for name, files in contents.items():
        root = folder / packages / name
        (root / "DEBIAN").mkdir(parents=True)
        for file, path in files:
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            text = (STAND_IN / place / file).read_text()
            target.write_text(text.replace("VERSION", version))
            target.chmod(0o644 if file.endswith(".service") else 0o755)
        yield _built(folder, root, name, packages)


#: Clients of file systems that no distribution has, or that this kernel cannot have: their names.
#: Of the first two, NAME of dkms.conf and the module.
_CLIENT_MODULES = {
    "lustre-client-modules-dkms": ("lustre-client-modules", "lustre", "lustre-postinst.sh"),
    "beegfs-client-dkms": ("beegfs", "beegfs", "dkms-postinst.sh"),
}
_CLIENTS: dict[str, tuple[tuple[str, str], ...]] = {
    "lustre-client-utils": (("mount.sh", "usr/sbin/mount.lustre"),),
    "beegfs-client-dkms": (
        ("mount.sh", "usr/sbin/mount.beegfs"),
        ("beegfs-client.conf", "etc/beegfs/beegfs-client.conf"),
    ),
    "ceph-common": (("mount.sh", "usr/sbin/mount.ceph"),),
    "lustre-client-modules-dkms": (),
}


def client_stand_ins(folder: Path, version: str, *, builds: bool = True) -> tuple[Path, ...]:
    """Packages of clients of Lustre, BeeGFS and CephFS; where `builds` is False, the modules of the
    first two do not compile."""
    return tuple(_client_stand_ins(folder, version, builds=builds))


def _client_stand_ins(folder: Path, version: str, *, builds: bool) -> Iterator[Path]:
    place = STAND_IN / "file_systems"
    for package, contents in _CLIENTS.items():
        root = folder / version / package
        name, module, postinst = _CLIENT_MODULES.get(package, ("", "", ""))
        files = [*contents]
        if module:
            source = f"usr/src/{name}-{version}"
            files += [(it, f"{source}/{it}") for it in ("dkms.conf", "build.sh", "module.c")]
            files += [(postinst, "DEBIAN/postinst"), ("dkms-prerm.sh", "DEBIAN/prerm")]
        (root / "DEBIAN").mkdir(parents=True)
        for file, path in files:
            text = (place / file).read_text()
            for word, value in (("NAME", name), ("VERSION", version), ("MODULE", module)):
                text = re.sub(rf"\b{word}\b", value, text)
            if not builds:
                text = text.replace("void *parent, void *name", "void *parent, int name, int more")
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(0o644 if file.endswith((".conf", ".c")) else 0o755)
        # linux-headers-… has the compiler come along elsewhere.
        depends = "dkms, gcc" if module else ""
        yield _built(folder, root, package, version, depends)


def pyxis_stand_in(folder: Path, spoilt: bool = False) -> Path:
    """The stand-in plugin's source archive; `spoilt`, it does not compile."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "pyxis-0.20.0"
    shutil.copytree(STAND_IN / "pyxis", source)
    if spoilt:
        (source / "pyxis.c").write_text("this is no C\n")
    archive = folder / "pyxis-0.20.0.tar.gz"
    subprocess.run(["tar", "-C", folder, "-czf", archive, source.name], check=True)
    return archive


def slurm_source(
    folder: Path, *, version: str = "99.1-1", rules: str = "", name: str = "slurm-99.1"
) -> Path:
    """A source archive with packaging of its own, so small that it builds in a second. It stands
    in for Slurm's where a build must fail: what it makes is never installed.

    Args:
        folder: where the archive goes.
        version: that of debian/changelog.
        rules: shell words before the package is made, such as ``false``.
        name: the archive's.
    """
    control = (
        "Source: slurm-smd\nMaintainer: slurmstack <slurmstack@localhost>\nSection: admin\n"
        "Priority: optional\n\n"
        "Package: slurm-smd\nArchitecture: all\nDescription: stand-in for Slurm\n"
    )
    script = (
        "#!/usr/bin/make -f\nbuild clean build-arch build-indep:\nbinary-arch:\n"
        "binary binary-indep:\n"
        f"\t{rules or 'true'}\n"
        "\tmkdir -p debian/tmp/DEBIAN\n"
        "\tdpkg-gencontrol\n\tdpkg-deb --build debian/tmp ..\n"
    )
    return _source(folder, name, version, control, script)


def slurm_of_the_distribution(folder: Path, version: str) -> Path:
    """A source archive whose packaging makes packages that can be deployed: SchedMD's names, the
    distribution's binaries. It takes the whole route of Slurm's own archive but for the compiler.

    Args:
        folder: where the archive goes.
        version: that of debian/changelog; the binaries are those that the package host is offered.
    """
    place = STAND_IN / "slurm"
    control, rules = (place / "control").read_text(), (place / "rules.sh").read_text()
    return _source(folder, "slurm-repacked", version, control, rules)


def _source(folder: Path, name: str, version: str, control: str, rules: str) -> Path:
    debian = folder / name / "debian"
    debian.mkdir(parents=True)
    (debian / "changelog").write_text(
        f"slurm-smd ({version}) unstable; urgency=low\n\n  * .\n\n"
        " -- slurmstack <slurmstack@localhost>  Thu, 01 Jan 2026 00:00:00 +0000\n"
    )
    (debian / "control").write_text(control)
    (debian / "rules").write_text(rules)
    (debian / "rules").chmod(0o755)
    archive = folder / f"{name}.tar.gz"
    subprocess.run(["tar", "-C", folder, "-czf", archive, name], check=True)
    return archive


def package(folder: Path, name: str, version: str, program: str) -> Path:
    """The file of a package with one program of its name, a script."""
    root = folder / version / name
    for part in ("DEBIAN", "usr/bin", f"etc/{name}"):
        (root / part).mkdir(parents=True)
    place = root / "usr/bin" / name
    place.write_text(program)
    place.chmod(0o755)
    return _built(folder, root, name, version)


def _built(folder: Path, root: Path, name: str, version: str, depends: str = "") -> Path:
    """The package file of a tree that is there but for its control file."""
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: slurmstack\n"
        + (f"Depends: {depends}\n" if depends else "")
        + f"Description: stand-in for {name} in the lab's tests\n"
    )
    file = folder / f"{name}_{version}_all.deb"
    command = ["dpkg-deb", "--root-owner-group", "--build", str(root), str(file)]
    subprocess.run(command, check=True, capture_output=True)
    return file
