"""Real gres.conf files: what people write is taken, and comes out as it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.configuration.served_files import gres_conf
from settings import parse
from settings.gres import node_gres
from tests.unit.settings.test_settings import PI, lab, mistakes

FILE = Path(__file__).parent / "cases" / "gres.conf"


def paragraphs() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Gres of slurm.conf, and the lines as parameter → value."""
    for paragraph in FILE.read_text().split("\n\n")[1:]:
        head, *lines = paragraph.strip().splitlines()
        yield head.removeprefix("#= "), [pairs(line) for line in lines]


def pairs(line: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in line.split())


def entries(lines: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The lines as an administrator carries them over: without the node's name, and AutoDetect of
    a line of its own at each GPU."""
    alone = [line["AutoDetect"] for line in lines if "Name" not in line]
    found = []
    for line in lines:
        if "Name" not in line:
            continue
        entry = {key: value for key, value in line.items() if key.lower() != "nodename"}
        if alone and entry["Name"] == "gpu":
            entry["AutoDetect"] = alone[0]
        found.append(entry)
    return found


def plain(line: dict[str, str]) -> dict[str, str]:
    """A line as Slurm takes it: names of parameters in any case, CPUs as Cores."""
    named = {key.lower(): value for key, value in line.items()}
    if "cpus" in named:
        named["cores"] = named.pop("cpus")
    for left_out in ("nodename", "autodetect"):
        named.pop(left_out, None)
    if "file" in named and named["name"] not in {"mps", "shard"}:
        named.pop("count", None)  # says what File says
    return named


CASES = list(paragraphs())


def test_there_are_enough() -> None:
    assert sum(len(lines) for _, lines in CASES) >= 180


@pytest.mark.parametrize(
    ("expected", "lines"), CASES, ids=[f"{index}-{head}" for index, (head, _) in enumerate(CASES)]
)
def test_as_people_write_it(expected: str, lines: list[dict[str, str]]) -> None:
    settings = parse({**lab(), "nodes": [{"hosts": "cn01", "Gres": entries(lines)}]})
    gres = settings.nodes[0].Gres
    assert gres is not None
    assert ",".join(node_gres(gres)) == expected
    written = gres_conf({"cn01": gres})
    assert written is not None
    wanted = [plain(line) for line in lines if "Name" in line]
    detected = {line["AutoDetect"] for line in lines if "AutoDetect" in line}
    read = [pairs(line) for line in written.splitlines() if not re.match(r"#", line)]
    assert {line["AutoDetect"] for line in read if "AutoDetect" in line} == detected
    assert [plain(line) for line in read if "Name" in line] == wanted


def problems(*gres: dict[str, Any]) -> dict[str, str]:
    node_class = {"hosts": "cn[01-02]", "hardware": PI, "Gres": list(gres)}
    return mistakes({"nodes": [node_class]})


CARD = {"Type": "a", "File": "/dev/nvidia0"}


@pytest.mark.parametrize(
    ("gres", "path", "says"),
    [
        # Each is a fatal error of slurmd or slurmctld 24.11, or a line that it leaves out.
        (
            [{**CARD, "AutoDetect": "off"}, {"Type": "b", "Count": 2, "AutoDetect": "nvml"}],
            "[1].AutoDetect",
            "off as in [0]",
        ),
        ([CARD, {"File": "/dev/nvidia1"}], "[1].Type", "a Type for all entries of gpu"),
        (
            [{"Name": "nic", "File": "/dev/a"}, {"Name": "nic", "Count": 2, "Type": None}],
            "[1]",
            "File in all entries of nic",
        ),
        (
            [{**CARD, "Flags": "nvidia_gpu_env"}, {**CARD, "File": "/dev/nvidia1"}],
            "[1].Flags",
            "the environment flags of the first gpu (nvidia_gpu_env)",
        ),
        ([CARD, CARD], "[1].File", "/dev/nvidia0, already of [0]"),
        ([{**CARD, "Count": 2}], "[0]", "a Count of 1, as many as File"),
        ([{"Type": "h100", "Count": 2, "Flags": "CountOnly"}], "[0]", "standIn: true"),
        ([{**CARD, "Links": "0,0"}], "[0]", "one -1 in Links"),
        ([{**CARD, "Cores": "x"}], "[0].Cores", "cores such as 0-15"),
        ([{**CARD, "Cores": "0-4096"}], "[0].Cores", "cores from 0 to 3"),
        ([{**CARD, "Flags": "nonsense"}], "[0].Flags", "'one_sharing'"),
        ([{**CARD, "File": "/dev/nvidia[0-1"}], "[0].File", "device files such as"),
        ([{"Name": "nic", "Count": 1, "AutoDetect": "nvml"}], "[0]", "no AutoDetect: nvml of nic"),
        ([{"Name": "nic", "Count": "4X"}], "[0].Count", "found '4X'"),
        ([{**CARD, "COREs": "0", "CPUs": "1"}], "[0]", "each parameter once"),
    ],
)
def test_what_slurm_refuses(gres: list[dict[str, Any]], path: str, says: str) -> None:
    found = problems(*gres)
    where = f"slurmstack:nodes[0].Gres{path}"
    assert says in found.get(where, ""), found
