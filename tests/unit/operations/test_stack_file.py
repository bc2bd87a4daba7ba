"""Edits of a stack's file change what they are about, and not a byte besides."""

from __future__ import annotations

import difflib
import os
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from operations.refused import Refused
from operations.stack_file import StackFile

PROJECT = Path(__file__).parents[3]
TEXT = """\
# Of the site.
encryptionsalt: v1:x
config:
  slurmstack:hosts: # by rack
    ctl: 10.0.0.1
    cn[01-02]: 10.0.0.[11-12]   # two

    # The last one is old.
    cn03: {address: 10.0.0.13, user: admin}
  slurmstack:nodes:
    # Alike.
    - hosts: 'cn[01-02]'
      Gres: [ { Name: gpu, Count: 4 } ]
    - hosts: cn03
  slurmstack:excluded:
    cn02: "fan # 3"
    cn03: memory
  other:key: 1
"""


def opened(folder: Path, text: str = TEXT) -> StackFile:
    (folder / "Pulumi.x.yaml").write_text(text)
    return StackFile(folder, "x", "slurmstack")


def changes(file: StackFile, text: str = TEXT) -> list[str]:
    """Lines that went and that came, and that the rest is as it was, in its order."""
    compared = difflib.ndiff(text.splitlines(), file.text.splitlines())
    return [line for line in compared if line[0] in "+-"]


def test_a_value_changes_in_its_place_and_quotes(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.set("cn[01-04]", "nodes", 0, "hosts")
    file.set("10.0.0.[11-14]", "hosts", "cn[01-02]")
    file.rename("cn[01-04]", "hosts", "cn[01-02]")
    assert changes(file) == [
        "-     cn[01-02]: 10.0.0.[11-12]   # two",
        "+     cn[01-04]: 10.0.0.[11-14]   # two",
        "-     - hosts: 'cn[01-02]'",
        '+     - hosts: "cn[01-04]"',
    ]


def test_a_value_between_braces_is_quoted(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.set("cn[1-2]", "hosts", "cn03", "user")
    assert changes(file)[1] == '+     cn03: {address: 10.0.0.13, user: "cn[1-2]"}'
    YAML(typ="safe").load(file.text)


def test_an_entry_comes_after_the_last_one(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.set("10.0.0.14", "hosts", "cn04")
    file.set("2026-11-25T10:00:00Z", "reapply", "cn01")
    assert changes(file) == [
        "+     cn04: 10.0.0.14",
        "+   slurmstack:reapply:",
        '+     cn01: "2026-11-25T10:00:00Z"',
    ]
    lines = file.text.splitlines()
    assert lines.index("    cn04: 10.0.0.14") == 9
    assert lines[-3:] == [
        "  other:key: 1", "  slurmstack:reapply:", '    cn01: "2026-11-25T10:00:00Z"',
    ]  # fmt: skip


def test_an_entry_goes_with_its_line_and_the_table_with_its_last_entry(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.drop("hosts", "cn03")
    file.drop("excluded", "cn02")
    assert changes(file) == [
        "-     cn03: {address: 10.0.0.13, user: admin}", '-     cn02: "fan # 3"',
    ]  # fmt: skip
    file.drop("excluded", "cn03")
    assert "excluded" not in file.text
    assert file.text.endswith("    - hosts: cn03\n  other:key: 1\n")


def test_an_entry_of_a_table_within_a_table(tmp_path: Path) -> None:
    text = "config:\n  slurmstack:slurm:\n    extra:\n      Foo: 1\n    MessageTimeout: 60\n"
    file = opened(tmp_path, text)
    file.set("2", "slurm", "extra", "Bar")
    file.rename("Baz", "slurm", "extra", "Foo")
    assert changes(file, text) == ["-       Foo: 1", "+       Baz: 1", '+       Bar: "2"']
    assert file.names("slurm", "extra") == ["Baz", "Bar"]
    assert file.names("slurm", "MessageTimeout") == file.names("nothing") == []
    assert (file.value("slurm", "MessageTimeout"), file.value("slurm", "extra")) == ("60", None)
    with pytest.raises(Refused, match=r"slurmstack:rest\.tls is missing; edit it by hand"):
        file.set("x", "rest", "tls", "certificate")
    with pytest.raises(Refused, match=r"slurmstack:slurm\.extra is no text; edit it by hand"):
        file.set("x", "slurm", "extra")


def test_the_configuration_as_it_would_be(tmp_path: Path) -> None:
    """Secrets are as Pulumi opened them; tables as Pulumi gives them, in JSON."""
    text = (
        "config:\n  slurmstack:hosts: {ctl: 10.0.0.1}\n  slurmstack:nodes: [{hosts: cn01}]\n"
        "  slurmstack:mungeKey:\n    secure: v1:abc\n  slurmstack:controller: ctl\n"
    )
    file = opened(tmp_path, text)
    file.set("x", "excluded", "cn01")
    opened_ones = {"slurmstack:mungeKey": "opened", "slurmstack:hosts": "as it was"}
    assert file.over(opened_ones) == {
        "slurmstack:hosts": '{"ctl": "10.0.0.1"}',
        "slurmstack:nodes": '[{"hosts": "cn01"}]',
        "slurmstack:mungeKey": "opened",
        "slurmstack:controller": "ctl",
        "slurmstack:excluded": '{"cn01": "x"}',
    }
    assert opened(tmp_path, "encryptionsalt: v1:x\n").over({}) == {}
    assert opened(tmp_path, "").over({}) == {}


@pytest.mark.parametrize("last", ["    cn03: memory", "    cn03: memory # why"])
def test_a_file_without_a_last_newline(tmp_path: Path, last: str) -> None:
    text = f"config:\n  slurmstack:excluded:\n{last}"
    file = opened(tmp_path, text)
    file.set("fan", "excluded", "cn04")
    assert file.text == f"{text}\n    cn04: fan\n"


@pytest.mark.parametrize(
    "value", ["12", "1e3", "yes", "null", "2026-11-25", "a: b", "- x", 'a"b\\']
)
def test_a_text_stays_a_text(tmp_path: Path, value: str) -> None:
    file = opened(tmp_path)
    file.set(value, "excluded", "cn01")
    again = YAML(typ="safe").load(file.text)
    assert again["config"]["slurmstack:excluded"]["cn01"] == value


def test_a_table_between_braces_is_left_to_the_operator(tmp_path: Path) -> None:
    file = opened(tmp_path, "config:\n  slurmstack:hosts: {ctl: 10.0.0.1}\n")
    with pytest.raises(Refused, match=r"slurmstack:hosts is not a table .* edit it by hand"):
        file.set("10.0.0.2", "hosts", "cn01")


@pytest.mark.parametrize("stack", ["lab", "prod"])
def test_a_node_goes_in_and_out_of_the_committed_files(tmp_path: Path, stack: str) -> None:
    text = (PROJECT / f"Pulumi.{stack}.yaml").read_text()
    file = opened(tmp_path, text)
    file.set("x", "excluded", "cn01")
    file.set("10.9.9.9", "hosts", "cn99")
    assert len(changes(file, text)) == 3
    file.drop("excluded", "cn01")
    file.drop("hosts", "cn99")
    assert file.text == text


def test_saving_is_whole_or_not_at_all(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.path.chmod(0o640)
    file.set("x", "excluded", "cn01")
    file.save()
    assert file.path.read_text() == file.text
    assert file.path.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["Pulumi.x.yaml"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a disk that is full")
def test_a_full_disk_leaves_the_file(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", tmp_path], check=True)
    try:
        file = opened(tmp_path)
        subprocess.run(["dd", "if=/dev/zero", f"of={tmp_path}/full", "bs=64k", "count=1"])
        file.set("x", "excluded", "cn01")
        with pytest.raises(Refused, match="No space left on device; the file is as it was"):
            file.save()
        assert file.path.read_text() == TEXT
        assert {path.name for path in tmp_path.iterdir()} == {"Pulumi.x.yaml", "full"}
    finally:
        subprocess.run(["umount", tmp_path], check=True)
