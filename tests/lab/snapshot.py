"""What a machine holds that a lab could leave behind, to compare before and after."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab.system import is_alive, processes

# Where the lab's tools write at all, beside the checkout and the image cache.
FOLDERS = (
    "/etc/systemd",
    "/run/lock",
    "/run/netns",
    "/run/systemd",
    "/var/lib/machines",
    "/var/lib/nginx",
    "/var/log/nginx",
)
TEMPORARY = ("mmdebstrap*", "nginx*", "ssh-*", "systemd-*")
CGROUPS = Path("/sys/fs/cgroup")


def snapshot(checkout: Path) -> dict[str, set[str]]:
    """Processes of the lab's kind, mounts, links, addresses, cgroups and files, as text.

    What other programs of this machine do meanwhile is not looked at.
    """
    labs = f"{checkout}/.lab/"
    return {
        "processes": {
            f"{pid} {words}"
            for pid, words in processes()
            if is_alive(pid)
            and (any(tool in words[0] for tool in ("nspawn", "nginx")) or labs in " ".join(words))
        },
        "mounts": set(Path("/proc/self/mounts").read_text().splitlines()),
        "links": _lines("ip", "-brief", "link"),
        "addresses": _lines("ip", "-brief", "address"),
        "rules": _lines("sh", "-c", "iptables -S 2>/dev/null || true"),
        "cgroups": {
            str(path) for kind in ("slurmstack", "payload") for path in CGROUPS.glob(f"*/*{kind}*")
        },
        "checkout": {
            str(path)
            for pattern in (".lab/*", ".slurmstack/*", "Pulumi.*")
            for path in checkout.glob(pattern)
        },
        "files": {str(path) for folder in FOLDERS for path in Path(folder).rglob("*")}
        | {str(path) for pattern in TEMPORARY for path in Path("/tmp").glob(pattern)},
    }


def leftovers(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is there after and was not before."""
    return {kind: new for kind in after if (new := after[kind] - before[kind])}


def _lines(*command: str) -> set[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines())
