"""What a node is measured by: the programs' words, figures that are kept, and what fails."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from on_node.acceptance import __main__ as command
from on_node.acceptance import alone, pairs
from on_node.acceptance.figures import Measured, judged

CONFIG: dict[str, Any] = {
    "stream": None, "hpl": None, "hplSize": 1000, "storage": [], "storageSize": 1,
    "tolerance": 0.8, "least": {},
}  # fmt: skip
#: As STREAM 5.10 prints it.
STREAM = """Function    Best Rate MB/s  Avg time     Min time     Max time
Copy:           12345.6     0.012     0.011     0.014
Triad:          11000.5     0.012     0.011     0.014
"""
#: As HPL 2.3 prints it.
HPL = """T/V                N    NB     P     Q               Time                 Gflops
--------------------------------------------------------------------------------
WR02R2L4        1000   128     1     1               0.28             2.4043e+00
WR02R2L4        2000   128     1     1               1.28             4.1655e+00
"""
#: As perftest 6 prints them (ib_write_lat, ib_write_bw).
LATENCY = """#bytes #iterations t_min[usec] t_max[usec] t_typical[usec] t_avg[usec] t_stdev[usec]
 2       1000          0.98           3.46         1.02              1.03         0.07
"""
BANDWIDTH = """#bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]
 65536      5000             23456.78            23400.12             0.374402
"""


def test_the_programs_figures_are_read() -> None:
    assert alone.triad(STREAM) == pytest.approx(11.0005)
    assert alone.triad("Triad:      35.036   0.0016\nStarSTREAM_Triad=33.37\n") == 33.37
    assert alone.triad("Segmentation fault") is None
    assert alone.gflops(HPL) == 4.1655
    assert alone.gflops("HPL_Tflops=0.00298505\n") == pytest.approx(2.98505)
    assert alone.gflops("") is None
    assert pairs.perftest(LATENCY) == 1.02
    assert pairs.perftest(BANDWIDTH) == 23400.12
    assert pairs.perftest("Couldn't connect") is None


def test_a_folder_that_does_not_answer_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for stat(1), as of a share whose server is gone."""
    (tmp_path / "stat").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "stat").chmod(0o755)
    monkeypatch.setattr(alone, "_PATIENCE", 0.2)
    config = {**CONFIG, "storage": [str(tmp_path)]}
    found = {it.test: it for it in alone.measures(config)}
    assert found[f"storage {tmp_path}, read"].verdict == "proven"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = {it.test: it for it in alone.measures(config)}
    assert found[f"storage {tmp_path}"].verdict == "failed"
    assert "does not answer" in found[f"storage {tmp_path}"].words


def test_a_program_has_its_input_and_what_it_writes_is_read() -> None:
    config = {**CONFIG, "hpl": "grep -q ^2000 HPL.dat && cp hpccinf.txt x && "
              "echo HPL_Tflops=0.5 >hpccoutf.txt", "hplSize": 2000}  # fmt: skip
    found = {it.test: it for it in alone.measures(config)}
    assert (found["HPL"].figure, found["HPL"].verdict) == (500, "proven")
    config["hpl"] = "echo no licence >&2; exit 3"
    found = {it.test: it for it in alone.measures(config)}
    assert (found["HPL"].verdict, found["HPL"].words.strip()) == ("failed", "no licence")


def test_a_folder_is_written_and_read_and_left_as_it_was(tmp_path: Path) -> None:
    config = {**CONFIG, "stream": "echo 'Triad: 1000.0'", "storage": [str(tmp_path), "/no/such"]}
    found = [it for it in alone.measures(config) if it.test.startswith("storage")]
    assert [it.verdict for it in found] == ["proven", "proven", "failed"]
    assert all(it.figure and it.figure > 1 for it in found[:2])
    assert list(tmp_path.iterdir()) == []


def test_figures_are_held_against_the_least_and_the_best() -> None:
    def said(figure: float, **words: Any) -> list[str]:
        it = Measured("STREAM triad", "proven", figure, "GB/s", key="stream")
        return [one.test for one in judged([it], words.get("best", {}), {**CONFIG, **words})]

    assert said(80) == []
    assert said(80, best={"STREAM triad": 100}) == []
    assert said(79, best={"STREAM triad": 100}) == ["STREAM triad, baseline"]
    assert said(79, least={"stream": 79.5}) == ["STREAM triad, least"]
    assert said(79, least={"hpl": 79.5}) == []


def test_a_gate_keeps_the_best_and_fails_below_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config, kept = tmp_path / "acceptance.json", tmp_path / "kept" / "results.json"
    monkeypatch.setattr(command, "CONFIG", str(config))
    monkeypatch.setattr(command, "KEPT", kept)
    monkeypatch.setenv("SLURMD_NODENAME", "cn01")

    def gate(figure: float, verb: str = "gate") -> int:
        text = json.dumps({**CONFIG, "stream": f"echo 'Triad: {figure}'"})
        config.write_text(text)
        return command.main([verb, *([] if verb == "gate" else [text])])

    assert gate(10_000) == 0
    assert not kept.parent.exists()  # kept only where the role is
    kept.parent.mkdir()
    assert gate(10_000) == 0
    assert "word STREAM triad|cn01|proven|10|GB/s|" in capsys.readouterr().out
    assert gate(7_000) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "STREAM triad, baseline: 7 GB/s, its best was 10"
    assert json.loads(kept.read_text())["best"]["STREAM triad"] == 10
    assert json.loads(kept.read_text())["last"]["figures"]["STREAM triad"] == [7, "GB/s"]
    # What was best may be forgotten.
    assert gate(7_000, "fresh") == 0
    assert gate(7_000) == 0


def test_two_sides_measure_each_other() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found: list[tuple[str, float, str]] = []
    server = threading.Thread(target=lambda: found.extend(pairs._serve(port)))
    server.start()
    pairs._ask("127.0.0.1", port)
    server.join(60)
    assert [(test, unit) for test, _, unit in found] == [
        ("pair latency", "us"),
        ("pair bandwidth", "MB/s"),
    ]
    assert all(figure > 0 for _, figure, _ in found)
