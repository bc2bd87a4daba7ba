"""What reconcile plans for slurmdbd's objects, and what it remembers, with a sacctmgr that is stood
for; tests/lab/test_accounting.py has the real one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.accounting.accounting_objects import objects_text
from components.accounting.slurmdbd import RECONCILE, database_bundle, reconcile_conf
from remote.bundle import File
from settings import parse
from templates.accounting.reconcile import Key, Memory, Planner, read_declared
from tests.unit.settings.test_settings import lab

DECLARED = """# comment
cluster c
  GrpJobs=9

qos high
  Preempt=low
account science
  Description=It's & for nights
account biology
  GrpTRES=cpu=8,mem=4G
  Parent=science
association dora biology
association dora biology main
  MaxJobs=2
user dora
  AdminLevel=Operator
  DefaultAccount=biology
"""


def plan(now: str, declared: str, memory: Memory | None = None) -> list[str]:
    """Steps as lines."""
    steps = Planner("c", read_declared(now), read_declared(declared), memory or Memory()).plan()
    return [f"{step}: {'|'.join(step.command)}" for step in steps]


def test_what_is_missing_is_made_in_the_order_of_its_declaration() -> None:
    assert plan("cluster c\n", DECLARED) == [
        "change cluster c: modify|cluster|set|GrpJobs=9|where|name=c",
        "make qos high: add|qos|name=high|Preempt=low",
        "make account science: add|account|name=science|cluster=c|Description=It's & for nights",
        "make account biology: "
        "add|account|name=biology|cluster=c|GrpTRES=cpu=8,mem=4G|Parent=science",
        "make association dora biology -: add|user|name=dora|account=biology|cluster=c",
        "make association dora biology main: "
        "add|user|name=dora|account=biology|cluster=c|partition=main|MaxJobs=2",
        # The first association makes the user, with its account as the default one.
        "change user dora: modify|user|set|AdminLevel=Operator|where|name=dora|cluster=c",
    ]


def test_what_is_as_declared_is_left_alone() -> None:
    assert plan(DECLARED, DECLARED) == []


def test_sacctmgrs_own_spelling_is_no_difference() -> None:
    memory = Memory(set={(("account", "a"), "GrpWall"): ("120", "02:00:00")})
    declared = "account a\n  GrpWall=120\n"
    assert plan("account a\n  GrpWall=02:00:00\n", declared, memory) == []
    # Changed by hand since, or declared anew.
    again = "change account a: modify|account|set|GrpWall=120|where|name=a|cluster=c"
    assert plan("account a\n  GrpWall=03:00:00\n", declared, memory) == [again]
    memory.set[("account", "a"), "GrpWall"] = ("60", "02:00:00")
    assert plan("account a\n  GrpWall=02:00:00\n", declared, memory) == [again]


@pytest.mark.parametrize(
    ("option", "value", "unset"),
    [
        ("GrpTRES", "cpu=8,gres/gpu=2", "cpu=-1,gres/gpu=-1"),
        ("QOS", "high,low", ""),
        ("Fairshare", "7", "1"),
        ("Description", "text", "a"),
        ("MaxJobs", "3", "-1"),
        ("Parent", "science", "root"),
    ],
)
def test_an_option_that_is_no_longer_declared_is_unset_if_it_is_as_it_was_set(
    option: str, value: str, unset: str
) -> None:
    memory = Memory(set={(("account", "a"), option): (value, value)})
    words = f"modify|account|set|{option}={unset}|where|name=a|cluster=c"
    now = f"account a\n  {option}={value}\n"
    assert plan(now, "account a\n", memory) == [f"change account a: {words}"]
    # The object is declared no longer, but others made it.
    assert plan(now, "", memory) == [f"change account a: {words}"]
    # Somebody has set it since.
    assert plan(f"account a\n  {option}=other\n", "account a\n", memory) == []


def test_what_was_made_goes_last_made_first_and_others_stay() -> None:
    made: list[Key] = [
        ("qos", "high"), ("account", "a"), ("account", "b"), ("association", "dora a -"),
        ("association", "dora b -"), ("account", "gone"),
    ]  # fmt: skip
    now = (
        "qos high\nqos byhand\naccount a\naccount b\naccount byhand\n"
        "association dora a\nassociation dora b\nassociation dora byhand\n"
        "user dora\n  DefaultAccount=b\n"
    )
    assert plan(now, "", Memory(made=made)) == [
        "remove association dora a -: delete|user|where|name=dora|account=a|cluster=c|partition=",
        # The default account of a user goes last: sacctmgr refuses it before.
        "remove association dora b -: delete|user|where|name=dora|account=b|cluster=c|partition=",
        "forget account gone: ",
        "remove account b: delete|account|where|name=b|cluster=c",
        "remove account a: delete|account|where|name=a|cluster=c",
        "remove qos high: delete|qos|where|name=high",
    ]


#: QOS are lines of a file; of their columns only the name is kept.
SACCTMGR = """#!/bin/sh
case "$*" in
  *"show cluster"*) echo c ;;
  *"show qos"*) sed "s/\\$/$COLUMNS_AFTER/" "$QOS" ;;
  *" show "*) ;;
  *"add qos name=bad") echo " Unknown QOS"; echo " Use keyword 'where'"; exit 1 ;;
  *"add qos name="*) echo "${4#name=}" >>"$QOS" ;;
  *"delete qos"*) sed -i "/^${5#name=}$/d" "$QOS" ;;
  *) echo "not understood: $*"; exit 1 ;;
esac
"""


class Node:
    """reconcile as it lies on the controller."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.qos = folder / "qos"
        self.qos.write_text("normal\n")
        settings = parse({**lab(), "accounting": {}})
        bundle = database_bundle("ctl", settings, "x" * 20)
        (text,) = [
            part.content
            for part in bundle.parts
            if isinstance(part, File) and part.path == RECONCILE
        ]
        (folder / "reconcile").write_text(str(text))
        place = json.loads(reconcile_conf(settings))
        place.update(
            cluster="c", objects=str(folder / "objects"), memory=str(folder / "made-objects")
        )
        (folder / "reconcile.json").write_text(json.dumps(place))
        self.columns = len(place["options"]["qos"])
        (folder / "bin").mkdir()
        (folder / "bin/sacctmgr").write_text(SACCTMGR)
        (folder / "bin/sacctmgr").chmod(0o755)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", self.folder / "reconcile", *words],
            env={
                **os.environ,
                "PATH": f"{self.folder}/bin:/usr/bin:/bin",
                "QOS": str(self.qos),
                "COLUMNS_AFTER": "|" * self.columns,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )

    def declare(self, *qos: str) -> None:
        (self.folder / "objects").write_text("".join(f"qos {name}\n" for name in qos))

    @property
    def memory(self) -> str:
        return (self.folder / "made-objects").read_text()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_it_makes_remembers_and_takes_back(node: Node) -> None:
    node.declare("high", "normal")
    looked = node.run("--check")
    assert looked.returncode == 3
    assert looked.stdout == "make qos high: sacctmgr --immediate add qos name=high\n"
    assert node.qos.read_text() == "normal\n"
    assert node.run().stdout == "make qos high\n"
    assert node.qos.read_text() == "normal\nhigh\n"
    assert node.memory == "made\tqos\thigh\n"
    assert node.run("--check").stdout == ""
    node.declare()
    assert node.run().stdout == "remove qos high\n"
    assert node.qos.read_text() == "normal\n", "what others made was removed"
    assert node.memory == ""


def test_what_sacctmgr_refuses_is_not_remembered_as_made(node: Node) -> None:
    node.declare("bad")
    done = node.run()
    assert done.returncode == 1
    assert done.stderr == (
        "make qos bad: Unknown QOS; correct its declaration, or what it needs, and run pulumi up "
        "again\n"
    )
    assert node.memory == ""


def test_qos_that_partitions_name_are_made_first(node: Node) -> None:
    assert node.run("--qos", "normal", "high").stdout == "make qos high\n"
    assert node.memory == "made\tqos\thigh\n"


def test_a_memory_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    text = (
        "made\tqos\thigh\nmade\tassociation\tdora a -\n"
        "set\tqos\thigh\tDescription\ta text\ta text\nset\taccount\ta\tGrpWall\t120\t\n"
    )
    (tmp_path / "memory").write_text(text)
    memory = Memory.read(tmp_path / "memory")
    memory.write(tmp_path / "again")
    assert (tmp_path / "again").read_text() == text


def test_it_reads_what_the_settings_declare() -> None:
    settings = parse(
        {**lab(), "accounting": {"qos": {"high": {"Priority": 5}}, "accounts": {"a": {}}}}
    )
    found = read_declared(objects_text(settings))
    assert found["qos", "high"] == {"Priority": "5"}
    assert ("account", "a") in found
