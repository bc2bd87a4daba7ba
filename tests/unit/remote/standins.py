"""Stand-ins for systemd, apt and the user database, one program under many names.

A unit test must not start daemons or install packages on the machine it runs on, so these keep a
small model in `$STANDIN/state` and record every changing call in its `calls`. What can really
run in a scratch root (awk, sha256sum, mv, flock, useradd --prefix, …) is the real thing.

One run of the applier calls them some twenty times. So they import what Python has loaded anyway:
json, pathlib, subprocess or typing would each take longer than all that is done here.
"""

# ruff: noqa: PTH103, PTH105, PTH110, PTH113, PTH119, PTH120, PTH123

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = os.environ.get("STANDIN", ".")
ROOT = os.environ.get("SLURMSTACK_ROOT", ".")
STATE = f"{FOLDER}/state"
#: systemd's: so many starts in ten seconds, and its words when there are more.
START_LIMIT = 5
TOO_OFTEN = """Job for UNIT failed because start of the service was attempted too often.
See "systemctl status UNIT" and "journalctl -xeu UNIT" for details.
To force a start use "systemctl reset-failed UNIT"
followed by "systemctl start UNIT" again."""
NAMES = [
    "systemctl",
    "journalctl",
    "apt-get",
    "apt-cache",
    "apt-mark",
    "dpkg",
    "dpkg-query",
    "getent",
    "groupadd",
    "useradd",
    "usermod",
]


def systemctl(state: dict[str, Any], args: list[str]) -> int:
    units = state.setdefault("units", {})
    verb, names = (
        args[0],
        [arg for arg in args[1:] if arg.endswith((".service", ".timer", ".mount"))],
    )
    if verb == "show":
        blocks = []
        for name in names:
            unit = units.get(name, {"load": "not-found", "active": "inactive", "enabled": ""})
            blocks.append(
                f"LoadState={unit.get('load', 'loaded')}\nActiveState={unit['active']}\n"
                f"UnitFileState={unit['enabled']}\nSubState={unit.get('sub', 'running')}\n"
                f"NRestarts={unit.get('restarts', 0)}\nResult={unit.get('result', 'success')}\n"
                f"InvocationID={unit.get('invocation', '')}\nMainPID={unit.get('pid', 0)}\n"
                f"NeedDaemonReload={unit.get('stale', 'no')}\n"
                f"StateChangeTimestampMonotonic={unit.get('changed', 0)}\n"
                f"ActiveEnterTimestamp={unit.get('since', '')}\n"
            )
        print("\n".join(blocks), end="")
        return 0
    if verb in ("is-active", "is-enabled"):
        want = verb.removeprefix("is-")
        return 0 if units.get(names[0], {}).get(want) == want else 3
    if verb == "reset-failed":
        unit = units.get(names[0], {"active": "inactive"})
        if unit["active"] != "failed" and not unit.get("starts"):
            return 0  # nothing to change
        unit.update({"starts": 0} if "starts" in unit else {"active": "inactive"})
    state["calls"].append(" ".join(["systemctl", *args]))
    failure = state.get("fails", {}).get(" ".join(args))
    if failure:
        print(failure, file=sys.stderr)
        if verb in ("start", "restart") and names:
            units[names[0]]["active"] = "failed"
        return 1
    if verb == "daemon-reload":
        for unit in units.values():
            unit["stale"] = "no"
    for name in names:
        unit = units[name]
        if "starts" in unit and verb in ("start", "restart"):
            unit["starts"] += 1
            if unit["starts"] > START_LIMIT:
                unit["active"] = "failed"
                print(TOO_OFTEN.replace("UNIT", name), file=sys.stderr)
                return 1
        if verb in ("start", "restart", "try-restart"):
            unit["active"] = unit.get("becomes", "active")
            unit["invocation"] = unit.get("invocation", 0) + 1
        if verb in ("start", "restart", "try-restart", "reload"):
            unit["changed"] = unit.get("changed", 0) + 1
            unit["loaded"] = {path: _content(path) for path in unit.get("reads", [])}
        if verb == "stop":
            unit["active"] = "inactive"
        if verb in ("enable", "disable"):
            unit["enabled"] = f"{verb}d"
    return 0


def _content(path: str) -> str | None:
    target = f"{ROOT}{path}"
    return _read(target) if os.path.isfile(target) else None


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _run(*command: str) -> int:
    """A command's exit code."""
    return os.waitstatus_to_exitcode(
        os.waitpid(os.posix_spawn(command[0], command, os.environ), 0)[1]
    )


def load(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        state: dict[str, Any] = marshal.load(file)
    return state


def save(path: str, state: dict[str, Any]) -> None:
    """In one step: the applier is killed in the middle of its calls."""
    new = f"{path}.{os.getpid()}"
    with open(new, "wb") as file:
        marshal.dump(state, file)
    os.replace(new, path)


def journalctl(state: dict[str, Any], args: list[str]) -> int:
    for line in state.get("journal", {}).get(args[args.index("-u") + 1], []):
        print(line)
    return 0


def getent(state: dict[str, Any], args: list[str]) -> int:
    for line in (_content(f"/etc/{args[0]}") or "").splitlines():
        if line.split(":")[0] == args[1]:
            print(line)
            return 0
    return 2


def account_tool(state: dict[str, Any], args: list[str], name: str) -> int:
    state["calls"].append(" ".join([name, *args]))
    return _run(f"/usr/sbin/{name}", "--prefix", ROOT, *args)


def dpkg_query(state: dict[str, Any], args: list[str]) -> int:
    packages = state.setdefault("packages", {})
    template = args[args.index("-f") + 1]
    wanted = [arg for arg in args if arg not in ("-W", "-f", template, "--")]
    status = 0
    for name in wanted or sorted(packages):
        package = packages.get(name)
        if package is None:
            status = 1
            continue
        line = template.replace("${db:Status-Status}", package.get("status", "installed"))
        line = line.replace("${Package}", name).replace("${Version}", package["version"])
        print(line.replace("\\n", "\n"), end="")
    return status


def dpkg(state: dict[str, Any], args: list[str]) -> int:
    if "--purge" in args:
        names = args[args.index("--") + 1 :]
        state["calls"].append(" ".join(["dpkg --purge", *names]))
        for name in names:
            del state["packages"][name]
        return 0
    state["calls"].append("dpkg --configure -a")
    if _locked(state, "dpkg: error: dpkg frontend lock was locked by another process with pid {}"):
        return 2
    if failure := state.get("fails", {}).get("dpkg --configure -a"):
        print(failure, file=sys.stderr)
        return 1
    for name, package in state["packages"].items():
        if package.get("status", "installed") != "installed":
            package["status"] = "installed"
            _start_daemon(state, name)
    return 0


def apt_cache(state: dict[str, Any], args: list[str]) -> int:
    for name in args[1:]:
        versions = state.get("lists", {}).get(name, {}).get("versions", [])
        if versions:
            installed = state["packages"].get(name, {}).get("version", "(none)")
            print(f"{name}:\n  Installed: {installed}\n  Candidate: {versions[0]}")
            print("  Version table:")
            for version in versions:
                print(f"     {version} 500\n        500 http://mirror.invalid x/main Packages")
    return 0


def apt_mark(state: dict[str, Any], args: list[str]) -> int:
    for name in args[1:]:
        if name != "--":
            state["packages"][name]["auto"] = args[0] == "auto"
    return 0


def apt_get(state: dict[str, Any], args: list[str]) -> int:
    options = {args[i + 1] for i, arg in enumerate(args) if arg == "-o"}
    words = [a for i, a in enumerate(args) if not a.startswith("-") and args[i - 1] != "-o"]
    verb, names = words[0], words[1:]
    if "-s" in args:
        for name in _garbage(state):
            print(f"Remv {name} [{state['packages'][name]['version']}]")
        return 0
    assert "Dpkg::Options::=--force-confold" in options
    assert any(option.startswith("DPkg::Lock::Timeout=") for option in options)
    assert os.environ["DEBIAN_FRONTEND"] == "noninteractive"
    state["calls"].append(" ".join(["apt-get", verb, *names]))
    if _locked(
        state,
        "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process {} (apt-get)",
    ):
        return 100
    failure = state.get("fails", {}).get(f"apt-get {verb}")
    if failure:
        for name in state.get("half_done", ()):  # what dpkg had come to by then
            state["packages"][name] = {"version": "2", "status": "half-configured"}
        print(failure, file=sys.stderr)
        return 100
    if verb == "update":
        state["lists"] = state.get("upstream", state.get("lists", {}))
    elif verb == "install":
        for spec in names:
            name, _, version = spec.partition("=")
            _install(state, name, version, auto=False)
    elif verb == "purge":
        for name in names:
            del state["packages"][name]
    return 0


def _locked(state: dict[str, Any], message: str) -> bool:
    if state.get("locked_for", 0) <= 0:
        return False
    state["locked_for"] -= 1
    print(message.format(os.getppid()), file=sys.stderr)
    return True


def _install(state: dict[str, Any], name: str, version: str, *, auto: bool) -> None:
    offer = state["lists"][name]
    for needed in offer.get("depends", []):
        if needed not in state["packages"]:
            _install(state, needed, "", auto=True)
    state["packages"][name] = {
        "version": version or offer["versions"][0],
        "auto": auto,
        "depends": offer.get("depends", []),
    }
    for unit in offer.get("units", []):
        state.setdefault("units", {}).setdefault(unit, {"active": "inactive", "enabled": "enabled"})
    for path, text in offer.get("files", {}).items():
        target = f"{ROOT}{path}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w", encoding="utf-8") as file:
            file.write(text)
    _start_daemon(state, name)


def _start_daemon(state: dict[str, Any], name: str) -> None:
    """What a package script does, after it has asked the policy."""
    policy = f"{ROOT}/usr/sbin/policy-rc.d"
    for unit in state.get("lists", {}).get(name, {}).get("units", []):
        if os.path.exists(policy) and _run(policy, unit, "start") == 101:
            continue
        state["calls"].append(f"package script starts {unit}")
        state["units"][unit]["active"] = "active"


def _garbage(state: dict[str, Any]) -> list[str]:
    packages = state["packages"]
    needed: set[str] = set()
    waiting = [name for name, package in packages.items() if not package.get("auto")]
    while waiting:
        name = waiting.pop()
        if name in packages and name not in needed:
            needed.add(name)
            waiting += packages[name].get("depends", [])
    return sorted(set(packages) - needed)


def main() -> int:
    name, args = os.path.basename(sys.argv[1]), sys.argv[2:]
    state = load(STATE)
    state.setdefault("calls", [])
    state.setdefault("packages", {})
    tools = {
        "systemctl": systemctl,
        "journalctl": journalctl,
        "getent": getent,
        "dpkg": dpkg,
        "dpkg-query": dpkg_query,
        "apt-get": apt_get,
        "apt-cache": apt_cache,
        "apt-mark": apt_mark,
    }
    tool = tools.get(name)
    status = tool(state, args) if tool else account_tool(state, args, name)
    save(STATE, state)
    return status
