"""What a lab could leave behind on a machine, to compare before and after."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from lab.names import bridge_name
from lab.system import is_alive, processes

# Where the lab's tools could write at all, beside the checkout and the image cache.
FOLDERS = ("/etc/systemd", "/run/lock", "/run/netns", "/var/lib/machines", "/var/lib/nginx")
TEMPORARY = ("mmdebstrap*", "nginx*")
# What other labs of this machine change, too: only what names the lab is looked at.
SHARED = ("/run/systemd",)
CGROUPS = Path("/sys/fs/cgroup")


def snapshot(checkout: Path, name: str) -> dict[str, set[str]]:
    """Processes, mounts, links, addresses, cgroups and files that a lab of this name can have.

    What other programs and other labs of this machine do meanwhile is not looked at.
    """
    own = (f"{checkout}/.lab/{name}", bridge_name(name), f"{name}-", f"Pulumi.{name}.")
    links = {
        link["ifname"]: f"{link['ifname']} {link.get('altnames', '')}"
        for link in json.loads(_output("ip", "-json", "link"))
    }
    links = {ifname: text for ifname, text in links.items() if _mentions(text, own)}
    return {
        "processes": {
            f"{pid} {words}"
            for pid, words in processes()
            if is_alive(pid) and _mentions(" ".join(words), own) and "pytest" not in words
        },
        "mounts": _lines(own, "cat", "/proc/self/mounts"),
        "links": set(links),
        "addresses": {
            line
            for line in _output("ip", "-brief", "address").splitlines()
            if line.split()[0].partition("@")[0] in links
        },
        "rules": _lines(own, "sh", "-c", "iptables -S 2>/dev/null || true"),
        "cgroups": {
            str(path)
            for pattern in ("*", "*/*", "*/*/*")
            for path in CGROUPS.glob(pattern)
            if _mentions(str(path), own)
        },
        "checkout": {
            str(path)
            for pattern in (".lab/*", ".slurmstack/*", "Pulumi.*")
            for path in checkout.glob(pattern)
            if _mentions(f"{path}-", own)
        },
        "files": {str(path) for folder in FOLDERS for path in Path(folder).rglob("*")}
        | {str(path) for pattern in TEMPORARY for path in Path("/tmp").glob(pattern)}
        | {
            str(path)
            for folder in SHARED
            for path in Path(folder).rglob("*")
            if _mentions(str(path), own)
        },
    }


def leftovers(before: dict[str, set[str]], after: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is there after and was not before."""
    return {kind: new for kind in after if (new := after[kind] - before[kind])}


def _mentions(text: str, marks: tuple[str, ...]) -> bool:
    return any(mark in text for mark in marks)


def _lines(marks: tuple[str, ...], *command: str) -> set[str]:
    return {line for line in _output(*command).splitlines() if _mentions(line, marks)}


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
