"""An SSH server that stands for many nodes: it answers each bundle as an applier that found nothing
to do, and runs nothing. What is measured against it is the engine and the program, not nodes.

Run as ``python -m bench.simulated PORT HOST_KEY_FILE NODES``; it listens on loopback alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys

import asyncssh


class _AnyKey(asyncssh.SSHServer):
    """Lets everybody in: it listens on loopback only and runs nothing."""

    def begin_auth(self, username: str) -> bool:
        return False


def answer(command: str, stdin: str) -> str:
    """What a node says to this command with this bundle."""
    if command.startswith("timeout 20 munge"):
        return "MUNGE:c2ltdWxhdGVk:"
    lines = stdin.splitlines()
    heads = {word[0]: word[1] for line in lines[:3] if len(word := line.split()) == 2}
    files = [line.split()[1] for line in lines if line.startswith(("file ", "file-base64 "))]
    packages = [line.split()[1] for line in lines if line.startswith("package ")]
    units = [line.split()[1] for line in lines if line.startswith("unit ")]
    digest = hashlib.sha256(stdin.encode()).hexdigest()
    return json.dumps(
        {
            "node": heads.get("node", "simulated"),
            "role": heads.get("role", "node"),
            "files": {path: {"sha256": digest} for path in files},
            "packages": dict.fromkeys(packages, "simulated"),
            "units": dict.fromkeys(units, "active"),
        }
    )


async def _serve(process: asyncssh.SSHServerProcess[str]) -> None:
    stdin = await process.stdin.read()
    process.stdout.write(answer(process.command or "", stdin) + "\n")
    process.exit(0)


def address(number: int) -> str:
    """The loopback address that stands for a node; 0 is the controller."""
    return f"127.64.{number // 250}.{number % 250 + 1}"


async def _main(port: int, key: str, nodes: int) -> None:
    for number in range(nodes + 1):
        await asyncssh.listen(
            address(number),
            port,
            server_factory=_AnyKey,
            server_host_keys=[key],
            process_factory=_serve,
        )
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
