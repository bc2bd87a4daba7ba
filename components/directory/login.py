"""Logins by SSH: who the applier comes as, and where sshd looks for keys."""

from __future__ import annotations

from remote.bundle import Guard, Part, Validate
from settings import Settings
from templates.rendering import render


def login_user(node: str, settings: Settings) -> str:
    """Whom the applier logs in as."""
    return settings.hosts[node].user or settings.ssh.user


def keys_read(
    node: str, settings: Settings, option: str, before: str, ours: str, conf: str
) -> list[Part]:
    """What stands before a file of sshd's that says where keys are: one of the site's own stays,
    and the applier still gets in.

    Args:
        node: the host.
        settings: the stack's.
        option: of sshd_config(5), as ``sshd -T`` writes it.
        before: its value where nobody has set it.
        ours: the value that it gets.
        conf: the file.
    """
    guard = render("directory/keys-are-read.sh", option=option, before=before, ours=ours)
    login = render("directory/login-works.sh")
    reads = render("directory/sshd-reads-it.sh", login=login, user=login_user(node, settings))
    return [
        Guard("keys-are-read", guard),
        Validate("sshd-reads-it", reads, on=(conf,), timeout=120),
    ]
