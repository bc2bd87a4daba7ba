"""JobAccess: a compute node lets a person in by SSH while a job of theirs runs there.

The rules are a file of our own; sshd's file, which is the distribution's and the site's, gets one
line that asks them. Debian's own profile for pam-auth-update asks for every service, and has no way
in for administrators: it stays off.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import pulumi

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.compute import compute_node
from components.directory import local_people
from components.directory.login import login_user
from components.packages.slurm_packages import slurm_packages
from remote.answer import Answer
from remote.bundle import Bundle, Check, Command, Directory, File, Guard, Package, Part, Validate
from settings import Settings
from templates.rendering import render

ROLE = "job-access"
RULES = "/etc/pam.d/slurmstack-job-access"
PROGRAM = "/usr/local/lib/slurmstack-job-access/job-access"
#: Fact: sessions leave the job that they were adopted into.
_LEAVES = "pam-systemd"


class JobAccess(HostRole):
    """The rule of one compute node, once slurmd is there to be asked."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        settings = assembly.settings
        if settings.directory is None or settings.directory.job_access is None:
            return
        for name in settings.compute_nodes:
            needs = assembly.on(name, compute_node.ROLE, local_people.ROLE)
            made = cls(name, assembly, job_access_bundle(name, settings), needs)
            made.deployed.answer.apply(_warn_of_pam_systemd)


def administrators(node: str, settings: Settings) -> tuple[list[str], list[str]]:
    """Users and groups who always get in: root and the applier's own login are among them."""
    assert settings.directory is not None
    access = settings.directory.job_access
    assert access is not None
    users = ["root", login_user(node, settings), *access.users]
    return list(dict.fromkeys(users)), list(access.groups)


def job_access_bundle(node: str, settings: Settings) -> Bundle:
    """What a compute node gets."""
    users, groups = administrators(node, settings)
    confined = settings.slurm.ProctrackType == "proctrack/cgroup"
    rules = render(
        "directory/job-access.pam",
        users=users,
        groups=groups,
        # Where jobs have no cgroups, there is none to be put into.
        adopt_failure="deny" if confined else "allow",
    )
    program = render(
        "directory/job-access.sh",
        rules=RULES,
        users=users,
        user=login_user(node, settings),
        login=render("directory/login-works.sh"),
    )
    return Bundle(
        node,
        ROLE,
        [
            Guard("sshd-asks-pam", render("directory/job-access-fits.sh")),
            *slurm_packages(settings, "pam"),
            Package("pamtester"),
            Directory(str(PurePosixPath(PROGRAM).parent)),
            File(PROGRAM, program, mode="0755"),
            File(RULES, rules),
            Validate(
                "administrators-get-in",
                f'exec sh "$SLURMSTACK_STAGED{PROGRAM}" try "$SLURMSTACK_STAGED{RULES}"\n',
                on=(PROGRAM, RULES),
                timeout=120,
            ),
            Command(
                "sshd-asks",
                f"exec {PROGRAM} put\n",
                on=(RULES,),
                probe=f"exec {PROGRAM} check\n",
                timeout=300,
            ),
            Command("sshd-asks-no-more", f"exec {PROGRAM} take\n", when="remove", timeout=60),
            *_adopts(confined),
        ],
    )


def _adopts(confined: bool) -> list[Part]:
    if not confined:
        return []
    return [Check("sessions-stay", render("directory/job-access-adopts.sh", fact=_LEAVES))]


def _warn_of_pam_systemd(answer: Answer) -> None:
    if answer.facts.get(_LEAVES):
        pulumi.log.warn(
            f"{answer.node}: pam_systemd takes sessions by SSH out of the job that they belong to: "
            "pam-auth-update --disable systemd there (and stop and mask systemd-logind), as "
            "Slurm's page of pam_slurm_adopt says"
        )
