"""Pulumi.STACK.yaml and secrets: what we write Pulumi reads, what it writes we read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.config import coerce, parse_key
from engine.errors import CommandError
from engine.filter import SecretFilter
from engine.secrets import IncorrectPassphrase, PassphraseCrypter
from engine.workspace import StackFile
from tests.engine.front.scenarios import Sandbox, embedded_pulumi

# Written by Pulumi 3.260.0 with the passphrase "correct horse": config set --secret.
SALT = "v1:WWb+MkoclDU=:v1:w1FhBdaIqbk6p4AG:V1syigo3RmGJr45p1eIhvvBYwr/gLQ=="
CIPHERTEXT = "v1:jG/jxxoZ2yq/8eSK:cdTjDQ1E1SHcw7+P5rJmovE70Tr73QT/TVkGg0XfaN+wBJiIAzM4"
PLAINTEXT = 'two\nlines & "quotes" é'


def test_reads_secrets_that_pulumi_wrote() -> None:
    assert PassphraseCrypter(SALT, "correct horse").decrypt(CIPHERTEXT) == PLAINTEXT


def test_secrets_round_trip() -> None:
    crypter = PassphraseCrypter.new("pass")
    again = PassphraseCrypter(crypter.state, "pass")
    for text in ("", "x", "é\U0001f600", "long " * 10_000):
        sealed = crypter.encrypt(text)
        assert sealed.startswith("v1:")
        assert again.decrypt(sealed) == text
        assert crypter.encrypt(text) != sealed
    with pytest.raises(IncorrectPassphrase):
        PassphraseCrypter(crypter.state, "other").check()
    with pytest.raises(IncorrectPassphrase):
        again.decrypt(sealed[:-8] + "AAAAAA==")


@pytest.mark.parametrize("state", ["", "v2:x:y:z", "v1:onlysalt"])
def test_malformed_salt(state: str) -> None:
    with pytest.raises(CommandError, match="encryptionsalt"):
        PassphraseCrypter(state, "pass")


WRITTEN = [
    ("plain", "hello"), ("number", "1"), ("truth", "true"), ("empty", ""), ("lines", "a\nb\n"),
    ("colon", "a: b # c"), ("quote", "it's \"so\""), ("yes", "yes"), ("octal", "0644"),
    ("spaces", "  x  "), ("dash", "- a"), ("null", "null"), ("float", "1e3"), ("star", "*x"),
    ("unicode", "é☃"), ("tab", "a\tb"), ("trailing", "a\n\n\n"),
]  # fmt: skip


def write_all(sandbox: Sandbox) -> None:
    assert sandbox.run("stack", "init", "dev").code == 0
    for key, value in WRITTEN:
        assert sandbox.run("config", "set", key, "--plaintext", "--", value).code == 0
    assert sandbox.run("config", "set", "--secret", "hidden", PLAINTEXT).code == 0
    for path, value in (("tree.a[0]", "1"), ("tree.a[1]", "x"), ('tree["b.c"].d', "true")):
        assert sandbox.run("config", "set", "--path", path, value).code == 0
    assert sandbox.run("config", "set", "--path", "--secret", "tree.s", "deep").code == 0


def read_all(sandbox: Sandbox) -> dict[str, str]:
    outcome = sandbox.run("config", "--json", "--show-secrets")
    assert outcome.code == 0, outcome.err
    return {key: entry["value"] for key, entry in json.loads(outcome.out).items()}


EXPECTED = {f"small:{key}": value for key, value in WRITTEN} | {
    "small:hidden": PLAINTEXT,
    "small:tree": '{"a":[1,"x"],"b.c":{"d":true},"s":"deep"}',
}


def test_configuration_round_trip(ours: Sandbox) -> None:
    write_all(ours)
    assert read_all(ours) == EXPECTED
    text = (ours.project / "Pulumi.dev.yaml").read_text()
    assert PLAINTEXT not in text
    assert "deep" not in text


def test_pulumi_reads_what_we_write(ours: Sandbox, real: Path) -> None:
    write_all(ours)
    ours.pulumi = real
    assert read_all(ours) == EXPECTED


def test_we_read_what_pulumi_writes(ours: Sandbox, real: Path, tmp_path: Path) -> None:
    ours.pulumi = real
    write_all(ours)
    ours.pulumi = embedded_pulumi(tmp_path)
    assert read_all(ours) == EXPECTED


COMMENTED = """\
# The stack.
encryptionsalt: SALT
config:
  # Why it is so.
  small:a: old # beside
  small:list:
    - name: 'x' # quoted as it was
      mode: 0o644
    - plain
  other:b: "2"
  c: no namespace
"""


def test_comments_order_and_style_stay(ours: Sandbox) -> None:
    path = ours.project / "Pulumi.dev.yaml"
    text = COMMENTED.replace("SALT", SALT)
    path.write_text(text)
    assert ours.run("stack", "init", "dev").code == 0
    assert path.read_text() == text
    assert ours.run("config", "set", "a", "new").code == 0
    assert ours.run("config", "set", "c", "changed").code == 0
    expected = text.replace("small:a: old", "small:a: new").replace("no namespace", "changed")
    assert path.read_text() == expected
    assert ours.run("config", "rm", "other:b").code == 0
    assert path.read_text() == expected.replace('  other:b: "2"\n', "")


def test_wrong_and_missing_passphrase(ours: Sandbox) -> None:
    write_all(ours)
    wrong = {"PULUMI_CONFIG_PASSPHRASE": "wrong"}
    assert ours.run("config", **wrong).code == 0
    for argv in (["config", "--show-secrets"], ["config", "get", "hidden"],
                 ["config", "set", "--secret", "x", "y"]):  # fmt: skip
        outcome = ours.run(*argv, **wrong)
        assert (outcome.code, outcome.err) == (1, "error: incorrect passphrase\n")
    outcome = ours.run("up", "--yes", **wrong)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == (
        "error: getting stack configuration: get stack secrets manager: incorrect passphrase\n"
    )
    del ours.env["PULUMI_CONFIG_PASSPHRASE"]
    assert "PULUMI_CONFIG_PASSPHRASE or" in ours.run("config", "--show-secrets").err
    file = ours.root / "passphrase"
    outcome = ours.run("config", "get", "hidden", PULUMI_CONFIG_PASSPHRASE_FILE=str(file))
    assert f"open {file}: no such file or directory" in outcome.err
    file.write_text("correct horse\n")
    outcome = ours.run("config", "get", "hidden", PULUMI_CONFIG_PASSPHRASE_FILE=str(file))
    assert outcome.out == PLAINTEXT + "\n"


def test_value_from_standard_input(ours: Sandbox) -> None:
    ours.run("stack", "init", "dev")
    assert ours.run("config", "set", "--secret", "piped", stdin="a\nb\n").code == 0
    assert ours.run("config", "get", "piped").out == "a\nb\n"
    assert ours.run("config", "set", "raw", "--raw", stdin="a\n").code == 0
    assert ours.run("config", "get", "raw").out == "a\n\n"


@pytest.mark.parametrize("text", ["- a list", "config: 5", "config: [", "\x00"])
def test_broken_stack_file(text: str, ours: Sandbox) -> None:
    ours.run("stack", "init", "dev")
    (ours.project / "Pulumi.dev.yaml").write_text(text)
    outcome = ours.run("config")
    assert outcome.code == 1
    assert "Pulumi.dev.yaml" in outcome.err
    assert "Traceback" not in outcome.err


def test_paths() -> None:
    assert parse_key('a.b[0]["c.d"].e', "p", path=True) == ("p:a", ("b", 0, "c.d", "e"))
    assert parse_key("ns:a.b", "p", path=True) == ("ns:a", ("b",))
    assert parse_key("a.b:c", "p", path=True) == ("p:a", ("b:c",))
    for wrong in ("a[", "a.[0]", "a.", "[0]", "", ".a", 'a["b', "a:b:c.d"):
        with pytest.raises(CommandError):
            parse_key(wrong, "p", path=True)
    found = [coerce(t) for t in ("true", "12", "-3", "0", "012", "1.5", "x", str(2**64))]
    assert found == [True, 12, -3, 0, "012", "1.5", "x", str(2**64)]


# What Pulumi 3.260.0 makes of YAML scalars within a structure (`config --json`).
SCALARS = {
    "0644": "420", "0o644": "420", "1_000": "1000", "0x1F": "31", "089": "89", "-0": "0",
    "1.50": "1.5", "1e3": "1000", "3.0": "3", "on": '"on"', "yes": '"yes"', "~": "null",
    "": "null", "true": "true", '"1"': '"1"', "1-00:00:00": '"1-00:00:00"',
    "12:30:45": '"12:30:45"', "2024-01-02": '"2024-01-02 00:00:00 +0000 UTC"',
    "{<<: {x: 1}, 5: five, true: t}": '{"5":"five","true":"t","x":1}',
}  # fmt: skip


@pytest.mark.parametrize(("written", "read"), SCALARS.items())
def test_yaml_scalars(written: str, read: str, tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.s.yaml"
    path.write_text(f"config:\n  p:x:\n    k: {written}\n")
    config, _ = StackFile(path, "p").decrypted(SecretFilter())
    assert config == {"p:x": f'{{"k":{read}}}'}


@pytest.mark.parametrize("written", [".inf", "!!binary aGVsbG8=", "2024-01-02T03:04:05Z"])
def test_yaml_scalars_without_json(written: str, tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.s.yaml"
    path.write_text(f"config:\n  p:x:\n    k: {written}\n")
    with pytest.raises(CommandError, match="no form in JSON"):
        StackFile(path, "p").decrypted(SecretFilter())


def test_json_of_pulumi_and_ours_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "Pulumi.s.yaml"
    path.write_text("config:\n  p:x:\n    b: <&>\n    a: [1, 2.5, true, null]\n")
    config, secrets = StackFile(path, "p").decrypted(SecretFilter())
    assert config == {"p:x": '{"a":[1,2.5,true,null],"b":"\\u003c\\u0026\\u003e"}'}
    assert not secrets
