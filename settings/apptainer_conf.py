"""apptainer.conf: its directives, as Apptainer 1.4 documents them, and slurmstack's policy.

Apptainer passes over a directive that it does not know without a word, so a misspelt one leaves
the default in force; here it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

Value = bool | int | str | list[str]

_SWITCHES = (
    "allow container dir", "allow container encrypted", "allow container extfs",
    "allow container sif", "allow container squashfs", "allow ipc ns", "allow monitoring",
    "allow pid ns", "allow setuid", "allow setuid-mount encrypted", "allow setuid-mount extfs",
    "allow user ns", "allow uts ns", "always use nv", "always use rocm", "config group",
    "config passwd", "config resolv_conf", "enable fusemount", "mount devpts", "mount home",
    "mount hostfs", "mount proc", "mount slave", "mount sys", "mount tmp", "shared loop devices",
    "systemd cgroups", "use nvidia-container-cli", "user bind control",
)  # fmt: skip
_NUMBERS = (
    "download buffer size", "download concurrency", "download part size", "max loop devices",
    "mksquashfs procs", "sessiondir max size",
)  # fmt: skip
_CHOICES = {
    "allow setuid-mount squashfs": ("yes", "no", "iflimited"),
    "enable overlay": ("yes", "no", "try", "driver"),
    "enable underlay": ("yes", "no", "preferred"),
    "memory fs type": ("tmpfs", "ramfs"),
    "mount dev": ("yes", "no", "minimal"),
    "root default capabilities": ("full", "file", "no"),
}
_TEXTS = (
    "apptheus communication socket path", "binary path", "cni configuration path",
    "cni plugin path", "image driver", "mksquashfs mem",
)  # fmt: skip
_LISTS = (
    "allow net groups", "allow net networks", "allow net users", "allow netns paths", "bind path",
    "limit container groups", "limit container owners", "limit container paths",
)  # fmt: skip

#: No privilege is gained, and the host's file systems stay outside; see docs/containers.md.
POLICY: dict[str, Value] = {
    "allow container dir": True,
    "allow container encrypted": True,
    "allow container extfs": True,
    "allow container sif": True,
    "allow container squashfs": True,
    "allow pid ns": True,
    "allow setuid": False,
    "allow setuid-mount encrypted": False,
    "allow setuid-mount extfs": False,
    "allow setuid-mount squashfs": "no",
    "allow user ns": True,
    "always use nv": False,
    "bind path": ["/etc/localtime", "/etc/hosts"],
    "config group": True,
    "config passwd": True,
    "config resolv_conf": True,
    "enable overlay": "yes",
    "enable underlay": "no",
    "mount dev": "yes",
    "mount home": True,
    "mount hostfs": False,
    "mount proc": True,
    "mount slave": True,
    "mount sys": True,
    "mount tmp": True,
    "root default capabilities": "full",
    "sessiondir max size": 16,
    "user bind control": True,
}


def check(conf: Mapping[str, Value]) -> None:
    """Raise ValueError for a directive or value that Apptainer would not take as meant."""
    for name, value in conf.items():
        if name == "allow suid":
            raise ValueError('"allow setuid" (Apptainer passes over "allow suid")')
        if name in _SWITCHES:
            if not isinstance(value, bool):
                raise ValueError(f"{name}: yes or no")
        elif name in _NUMBERS:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}: a whole number")
        elif name in _CHOICES:
            if _word(value) not in _CHOICES[name]:
                raise ValueError(f"{name}: one of {', '.join(_CHOICES[name])}")
        elif name in _TEXTS:
            if not isinstance(value, str) or "\n" in value or not value:
                raise ValueError(f"{name}: a text of one line")
        elif name in _LISTS:
            if not isinstance(value, list) or any("," in item or "\n" in item for item in value):
                raise ValueError(f"{name}: a list of texts without commas")
            if any(item.lower() == "null" for item in value):
                raise ValueError(f"{name}: an empty list (null is taken as a name)")
        else:
            raise ValueError(f"a directive of apptainer.conf, not {name!r}")


def lines(conf: Mapping[str, Value]) -> list[str]:
    """The lines of apptainer.conf: slurmstack's policy with these values over it, sorted."""
    written = []
    for name, value in sorted((POLICY | dict(conf)).items()):
        values = value if isinstance(value, list) else [_word(value)]
        written += [f"{name} = {item}" for item in values]
    return written


def _word(value: Value) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)
