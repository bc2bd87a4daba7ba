"""An SSH server that stands for many nodes: it answers each bundle as an applier that found nothing
to do, runs nothing, and counts. What is measured against it is the engine and the program.

Run as ``python -m bench.simulated PORT HOST_KEY_FILE HOSTS``; it listens on loopback alone. For
each line on its stdin it prints how many commands each address got since the last, as JSON; numbers
on that line are hosts that die first.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import hashlib
import json
import re
import sys

import asyncssh

from remote.bundle import File
from remote.effects import digest
from remote.framing import BEGIN, END
from remote.reading import is_bundle, read

#: Role → what other roles need of its answer.
_FACTS = {
    "munge-credential": {"credential": "MUNGE:c2ltdWxhdGVk:"},
    "package-host": {
        "packages-index": "0" * 16,
        "packages-key": base64.b64encode(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n").decode(),
    },
    "jwt": {"jwt-kid": "simulated"},
    "slurmrestd": {"rest-ca": base64.b64encode(b"simulated").decode()},
}
_commands: collections.Counter[str] = collections.Counter()
#: By the host's number.
_listening: list[asyncssh.SSHAcceptor] = []


class _AnyKey(asyncssh.SSHServer):
    """Lets everybody in: it listens on loopback only and runs nothing."""

    def begin_auth(self, username: str) -> bool:
        return False


def answer(command: str, stdin: str) -> str:
    """What a node says to this command with this bundle."""
    if command == "sh -s":
        return compared(stdin)
    lines = stdin.splitlines()
    heads = {word[0]: word[1] for line in lines[:3] if len(word := line.split()) == 2}
    files = (
        [part for part in read(stdin).parts if isinstance(part, File)] if is_bundle(stdin) else []
    )
    packages = [line.split()[1] for line in lines if line.startswith("package ")]
    units = [line.split()[1] for line in lines if line.startswith("unit ")]
    facts = re.findall(r"""^ *echo '(\S+) (\S+)' >>"\$SLURMSTACK_FACTS"$""", stdin, re.MULTILINE)
    role = heads.get("role", "munge-credential" if "munge --no-input" in command else "node")
    return json.dumps(
        {
            "node": heads.get("node", "simulated"),
            "role": role,
            "files": {part.path: {"sha256": digest(part.content)} for part in files},
            "packages": dict.fromkeys(packages, "simulated"),
            "units": dict.fromkeys(units, "active"),
            "facts": {**dict(facts), **_FACTS.get(role, {})},
        }
    )


def compared(script: str) -> str:
    """What a node says of which nothing differs (operations/drift.py)."""
    applier, _, rest = script.partition("(set -- compare\n")[2].partition(") <<'end-of-bundles-")
    found = [
        "time 2026-01-31T12:00:00Z",
        "node simulated",
        *re.findall(r"^role \S+$", rest, re.M),
        END,
        "fact machine-id simulated",
        "fact state 6",
        f"fact applier {hashlib.sha256(applier.encode()).hexdigest()}",
        "fact munge MUNGE:c2ltdWxhdGVk:",
    ]
    return "\n".join([BEGIN, BEGIN, *found, END])


async def _serve(process: asyncssh.SSHServerProcess[str]) -> None:
    _commands[process.get_extra_info("sockname")[0]] += 1
    stdin = await process.stdin.read()
    process.stdout.write(answer(process.command or "", stdin) + "\n")
    process.exit(0)


def address(number: int) -> str:
    """The loopback address that stands for a host; 0 is the controller."""
    return f"127.64.{number // 250}.{number % 250 + 1}"


def _report() -> None:
    line = sys.stdin.readline()
    if not line:
        asyncio.get_running_loop().remove_reader(sys.stdin)
        return
    for number in line.split():
        _listening[int(number)].close()
    print(json.dumps(_commands), flush=True)
    _commands.clear()


async def _main(port: int, key: str, hosts: int) -> None:
    for number in range(hosts):
        listening = await asyncssh.listen(
            address(number),
            port,
            server_factory=_AnyKey,
            server_host_keys=[key],
            process_factory=_serve,
        )
        _listening.append(listening)
    asyncio.get_running_loop().add_reader(sys.stdin, _report)
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
