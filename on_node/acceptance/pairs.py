"""Bandwidth and latency between two nodes: two tasks of a step."""

from __future__ import annotations

import os
import re
import shutil
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from on_node.acceptance.versions import said

MIB = 1 << 20


def pair(server: str, client: str, address: str, port: int) -> None:
    """One of the two tasks; which one it is says its node.

    Args:
        server: the node that listens.
        client: the other one.
        address: the server's.
        port: free on it, and the one after it, too.
    """
    serves = os.environ.get("SLURMD_NODENAME") == server
    if _has_infiniband() and shutil.which("ib_write_bw") and shutil.which("ib_write_lat"):
        _infiniband(serves, f"{server}|{client}", address, port)
    elif serves:
        for test, figure, unit in _serve(port):
            test = f"{test} (TCP, not InfiniBand)"
            print(f"pair {test}|{server}|{client}|stand-in|{figure:.6g}|{unit}|")
    else:
        _ask(address, port)


def _has_infiniband() -> bool:
    return any(Path("/sys/class/infiniband").glob("*"))


_ROUND_TRIPS, _SIZE = 300, 64 * MIB
#: Seconds, and what ends a stream; all else in it is zeros.
_LONG, _END = 3.0, b"end of it"


def _serve(port: int) -> Iterator[tuple[str, float, str]]:
    """The side that measures: round trips of a byte, then a stream to the other."""
    with socket.create_server(("", port), reuse_port=True) as listener:
        listener.settimeout(60)
        connection, _ = listener.accept()
    with connection:
        connection.settimeout(120)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times = []
        for _ in range(_ROUND_TRIPS):
            start = time.perf_counter()
            connection.sendall(b"x")
            if not connection.recv(1):
                raise OSError("the other side went away")
            times.append(time.perf_counter() - start)
        # Half of a round trip, of the better half of them.
        yield "pair latency", statistics.median(sorted(times)[: len(times) // 2]) / 2 * 1e6, "us"
        # A link may be sick in one direction alone.
        there = _send(connection)
        back = _receive(connection)
        yield "pair bandwidth", min(there, back), "MB/s"


def _send(connection: socket.socket) -> float:
    """MB/s from here to the other side, its word included that all has arrived."""
    block, start, sent = bytes(MIB), time.perf_counter(), 0
    # A link that is slow is known to be so before it has carried all.
    while sent < _SIZE and time.perf_counter() - start < _LONG:
        connection.sendall(block)
        sent += len(block)
    connection.sendall(_END)
    if not connection.recv(1):
        raise OSError("the other side went away")
    return sent / 1e6 / (time.perf_counter() - start)


def _receive(connection: socket.socket) -> float:
    """MB/s from the other side to here."""
    start, got, tail = time.perf_counter(), 0, b""
    while not tail.endswith(_END):
        block = connection.recv(MIB)
        if not block:
            raise OSError("the other side went away")
        got += len(block)
        tail = (tail + block)[-len(_END) :]
    spent = time.perf_counter() - start
    connection.sendall(b"x")
    return got / 1e6 / spent


def _ask(address: str, port: int) -> None:
    with _connected(address, port) as connection:
        connection.settimeout(120)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(_ROUND_TRIPS):
            connection.sendall(connection.recv(1))
        _receive(connection)
        _send(connection)


def _connected(address: str, port: int) -> socket.socket:
    """To a side that may have yet to listen."""
    end = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection((address, port), timeout=10)
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _infiniband(serves: bool, between: str, address: str, port: int) -> None:
    """perftest's ib_write_bw and ib_write_lat, a server and a client of each."""
    for number, (program, test, unit) in enumerate(
        (("ib_write_lat", "pair latency (InfiniBand)", "us"),
         ("ib_write_bw", "pair bandwidth (InfiniBand)", "MB/s"))
    ):  # fmt: skip
        words = [program, "-F", "-p", str(port + number)]
        if serves:
            said(words, timeout=90)
            continue
        told, end = "", time.monotonic() + 60
        while not told and time.monotonic() < end:
            told = said([*words, address], timeout=90)
        figure = perftest(told)
        verdict = "proven" if figure is not None else "failed"
        text = "" if figure is not None else told or f"{program} gave no figure"
        text = " ".join(text.replace("|", " ").split())[-200:]
        print(f"pair {test}|{between}|{verdict}|{figure or ''}|{unit}|{text}")


def perftest(told: str) -> float | None:
    """The figure of the last line: typical latency in us (column 5), average bandwidth in MB/s
    (column 4), as perftest 4.5 and later print them."""
    rows = [line.split() for line in told.splitlines() if re.match(r"\s*\d+\s+\d+\s+[\d.]+", line)]
    if not rows:
        return None
    row = rows[-1]
    return float(row[4] if len(row) > 5 else row[3])
