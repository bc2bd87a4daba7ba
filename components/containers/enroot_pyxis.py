"""EnrootPyxis: containers for `srun --container-image`, as parts of the roles that run Slurm.

A SPANK plugin loads only into the Slurm that it was built for, and a plugin that is required but
does not load stops slurmd and srun. So it has no bundle of its own: its package is installed in
the same step as slurmd's or the client's, before the daemon is restarted, and its dependency on
that very version keeps dpkg from ever leaving the two apart.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from components.packages.package_repository import PYXIS
from remote.bundle import Check, Command, Directory, File, Package, Part
from templates.rendering import render

if TYPE_CHECKING:
    from settings import Settings
    from settings.containers import EnrootPyxis

PLUGIN = "/usr/lib/slurmstack/spank/pyxis.so"
#: plugstack.conf is served to the nodes, but what it includes is not: each has its own.
PLUGSTACK = "/etc/slurm/plugstack.conf"
PLUGSTACK_FOLDER = "/etc/slurm/plugstack.conf.d"
PYXIS_CONF = f"{PLUGSTACK_FOLDER}/pyxis.conf"
#: In the same package: what a TaskProlog cannot do for tasks in containers.
ENVIRONMENT_PLUGIN = "/usr/lib/slurmstack/spank/environment.so"
ENVIRONMENT_CONF = f"{PLUGSTACK_FOLDER}/environment.conf"
ENVIRONMENT = "/etc/slurm/job-environment"
#: Where Pyxis asks for the file of an image.
IMPORTER = "/usr/local/lib/slurmstack/pyxis-importer"
ENROOT_CONF = "/etc/enroot/enroot.conf"
TMPFILES = "/etc/tmpfiles.d/slurmstack-enroot.conf"


def controller_parts(settings: Settings) -> list[Part]:
    """plugstack.conf, which slurmctld serves, and Pyxis for srun on the controller itself."""
    if settings.enroot_pyxis is None:
        return []
    text = render("containers/plugstack.conf", folder=PLUGSTACK_FOLDER)
    return [File(PLUGSTACK, text), *client_parts(settings)]


def client_parts(settings: Settings) -> list[Part]:
    """Pyxis where jobs are submitted from: it adds the options of srun and sbatch there."""
    containers = settings.enroot_pyxis
    if containers is None:
        return []
    return [
        Package(PYXIS, containers.pyxis.release(settings.packages)),
        Directory(PLUGSTACK_FOLDER),
        File(PYXIS_CONF, pyxis_conf(settings)),
    ]


def login_parts(settings: Settings) -> list[Part]:
    """Pyxis where users log in; plugstack.conf comes with what sackd fetches."""
    parts = client_parts(settings)
    return [Directory("/etc/slurm"), *parts] if parts else []


def node_parts(settings: Settings) -> list[Part]:
    """Enroot and Pyxis where jobs run."""
    containers = settings.enroot_pyxis
    if containers is None:
        return []
    enroot = containers.enroot
    parts = [*_importer_parts(settings), *login_parts(settings)]
    parts += [Package(file.package, file.version) for file in enroot.packages]
    parts.append(File(ENROOT_CONF, enroot_conf(containers)))
    if settings.job_environment:
        parts += [
            File(ENVIRONMENT, job_environment(settings)),
            File(
                ENVIRONMENT_CONF,
                render(
                    "containers/job-environment.conf", plugin=ENVIRONMENT_PLUGIN, values=ENVIRONMENT
                ),
            ),
        ]
    if enroot.shared_folders:
        parts += [
            File(TMPFILES, render("containers/enroot-tmpfiles", folders=enroot.shared_folders)),
            Command("enroot-folders", f"systemd-tmpfiles --create {TMPFILES}", on=(TMPFILES,)),
        ]
    return parts


def _importer_parts(settings: Settings) -> list[Part]:
    """What finds the registry's images by their names, before Pyxis is told of it."""
    images = settings.images
    if images is None or not _by_name(settings):
        return []
    script = render("containers/pyxis-importer.sh", root=images.root)
    return [Directory(str(PurePosixPath(IMPORTER).parent)), File(IMPORTER, script, mode="0755")]


def _by_name(settings: Settings) -> bool:
    """Whether images have their names: a site's own importer knows what it does."""
    containers = settings.enroot_pyxis
    return (
        settings.images is not None
        and containers is not None
        and containers.pyxis.has("importer")
        and containers.pyxis.options.importer is None
    )


def checks(settings: Settings) -> list[Part]:
    """Slurm's own commands have the plugin's options."""
    if settings.enroot_pyxis is None:
        return []
    return [Check("srun-has-containers", render("containers/srun-has-containers.sh"), timeout=30)]


def node_checks(settings: Settings) -> list[Part]:
    """And where jobs run, Enroot itself answers."""
    if settings.enroot_pyxis is None:
        return []
    answers = Check("enroot-answers", render("containers/enroot-answers.sh"), timeout=30)
    return [answers, *checks(settings)]


def served(settings: Settings) -> tuple[str, ...]:
    """What slurmctld hands out of it, and therefore reads anew when it changes."""
    return () if settings.enroot_pyxis is None else (PLUGSTACK,)


def restart_on(settings: Settings) -> tuple[str, ...]:
    """What slurmd reads of it when it starts."""
    if settings.enroot_pyxis is None:
        return ()
    environment = (ENVIRONMENT_CONF,) if settings.job_environment else ()
    return (PYXIS_CONF, *environment, f"package:{PYXIS}")


def pyxis_conf(settings: Settings) -> str:
    """The line by which Slurm loads Pyxis, with its options."""
    assert settings.enroot_pyxis is not None
    options = settings.enroot_pyxis.pyxis.options.words
    if _by_name(settings):
        options += (f"importer={IMPORTER}",)
    return render("containers/pyxis.conf", plugin=PLUGIN, options=options)


def job_environment(settings: Settings) -> str:
    """The variables of every task, as the plugin reads them."""
    values = dict(sorted(settings.job_environment.items()))
    return render("containers/job-environment", environment=values)


def enroot_conf(containers: EnrootPyxis) -> str:
    """enroot.conf, sorted."""
    return render("containers/enroot.conf", values=containers.enroot.written)
