"""The simulated nodes as the measurements use them: started, counted, ended."""

from __future__ import annotations

import collections
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncssh

PROJECT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Fleet:
    """Simulated hosts that listen on one port, each on an address of its own."""

    port: int
    host_key: str
    process: subprocess.Popen[str]

    def commands(self, *dying: int) -> collections.Counter[str]:
        """Address → commands that it was given since this was last asked; hosts of these numbers
        die first."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{' '.join(map(str, dying))}\n")
        self.process.stdin.flush()
        return collections.Counter(json.loads(self.process.stdout.readline()))


@contextmanager
def fleet(hosts: int, folder: Path) -> Iterator[Fleet]:
    """This many hosts; their host key is made in the folder."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    path = folder / "host_key"
    key.write_private_key(str(path))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bench.simulated", str(port), str(path), str(hosts)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=PROJECT, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout is not None
        try:
            if server.stdout.readline() != "listening\n":
                raise RuntimeError("the simulated nodes did not start")
            yield Fleet(port, key.export_public_key("openssh").decode().strip(), server)
        finally:
            server.terminate()
