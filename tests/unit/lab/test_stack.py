"""The lab's settings file and its environment."""

import os
import subprocess
from pathlib import Path

import pytest

from engine.secrets import PassphraseCrypter
from lab import keys, stack
from lab.names import Lab

SETTINGS = """\
# The lab: three machines.
config:
  slurmstack:cluster:
    name: lab
  slurmstack:ssh:
    knownHosts: .lab/lab/known_hosts
  slurmstack:hosts:
    ctl: 10.73.0.10
    cn[01-02]: 10.73.0.[21-22]  # not 110.73.0.1
"""
SALT = "encryptionsalt: v1:abc=:v1:def:ghi==\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "Pulumi.lab.yaml").write_text(SETTINGS)
    return tmp_path


def made(checkout: Path, name: str, subnet: int) -> Lab:
    lab = Lab(name, checkout, subnet)
    lab.folder.mkdir(parents=True)
    return lab


def test_a_further_labs_settings_have_its_addresses_and_paths(checkout: Path) -> None:
    text = stack.derive(SALT + SETTINGS, made(checkout, "two", 9))
    assert "knownHosts: .lab/two/known_hosts" in text
    assert "ctl: 10.73.9.10" in text
    # A host list opens the last number.
    assert "cn[01-02]: 10.73.9.[21-22]" in text
    assert "110.73.0.1" in text
    assert "encryptionsalt" not in text
    assert "# The lab: three machines." in text


def test_the_committed_salt_belongs_to_the_labs_passphrase_and_stays(checkout: Path) -> None:
    committed = (Path(__file__).parents[3] / "Pulumi.lab.yaml").read_text()
    assert f"\nencryptionsalt: {stack.SALT}\n" in committed
    # Raises where they do not belong together.
    PassphraseCrypter(stack.SALT, keys.PASSPHRASE).check()
    lab = made(checkout, "lab", 0)
    lab.stack_file.write_text(committed)
    stack.prepare_settings(lab, "slurmstack")
    stack.remove_settings(lab)
    assert lab.stack_file.read_text() == committed
    assert f"encryptionsalt: {stack.SALT}" in stack.derive(committed, made(checkout, "two", 9))


def test_settings_of_a_further_lab_are_made_once_and_removed(checkout: Path) -> None:
    lab = made(checkout, "two", 9)
    stack.prepare_settings(lab, "slurmstack")
    lab.stack_file.write_text(lab.stack_file.read_text() + "# edited\n")
    stack.prepare_settings(lab, "slurmstack")
    assert lab.stack_file.read_text().endswith("# edited\n")
    stack.remove_settings(lab)
    assert not lab.stack_file.exists()
    assert (checkout / "Pulumi.lab.yaml").read_text() == SETTINGS


def test_settings_of_a_further_lab_stay_while_they_hold_secrets(checkout: Path) -> None:
    lab = made(checkout, "two", 9)
    (checkout / "Pulumi.lab.yaml").write_text(f"encryptionsalt: {stack.SALT}\n{SETTINGS}")
    stack.prepare_settings(lab, "slurmstack")
    secret = PassphraseCrypter(stack.SALT, keys.PASSPHRASE).encrypt("s3cret")
    text = lab.stack_file.read_text() + f"  slurmstack:accountingPassword:\n    secure: {secret}\n"
    lab.stack_file.write_text(text)
    stack.remove_settings(lab)
    stack.prepare_settings(lab, "slurmstack")
    assert lab.stack_file.read_text() == text
    keys.make_passphrase(lab)
    crypter = PassphraseCrypter(stack.SALT, lab.passphrase.read_text().strip())
    assert crypter.decrypt(secret) == "s3cret"


def test_settings_that_a_person_wrote_are_not_removed(checkout: Path) -> None:
    lab = made(checkout, "two", 9)
    lab.stack_file.write_text(SALT + SETTINGS)
    stack.remove_settings(lab)
    assert lab.stack_file.read_text() == SETTINGS


@pytest.mark.parametrize("name", ["lab", "two"])
def test_settings_lose_the_salt_of_a_stack_that_is_gone(checkout: Path, name: str) -> None:
    lab = made(checkout, name, 9)
    lab.stack_file.write_text(SETTINGS + SALT)
    stack.prepare_settings(lab, "slurmstack")
    assert lab.stack_file.read_text() == SETTINGS


def test_the_committed_settings_keep_the_salt_of_a_stack_that_exists(checkout: Path) -> None:
    lab = made(checkout, "lab", 0)
    state = lab.state / ".pulumi/stacks/slurmstack/lab.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    lab.stack_file.write_text(SETTINGS + SALT)
    stack.prepare_settings(lab, "slurmstack")
    assert lab.stack_file.read_text() == SETTINGS + SALT


def test_what_an_engine_rewrote_is_put_back_as_it_was(checkout: Path) -> None:
    lab = made(checkout, "lab", 0)
    stack.keep_before_init(lab)
    lab.stack_file.write_text(SALT + SETTINGS.replace("  ", "    "))
    stack.keep_after_init(lab)
    stack.remove_settings(lab)
    assert lab.stack_file.read_text() == SETTINGS


def test_what_a_person_changed_stays(checkout: Path) -> None:
    lab = made(checkout, "lab", 0)
    stack.keep_before_init(lab)
    lab.stack_file.write_text(SALT + SETTINGS)
    stack.keep_after_init(lab)
    lab.stack_file.write_text(SALT + SETTINGS + "# mine\n")
    stack.remove_settings(lab)
    assert lab.stack_file.read_text() == SETTINGS + "# mine\n"


def test_facts_about_machines_that_are_gone_go_with_them(checkout: Path) -> None:
    lab = made(checkout, "two", 9)
    for name in ("two", "prod"):
        (checkout / ".slurmstack" / name).mkdir(parents=True)
    stack.remove_settings(lab)
    assert [path.name for path in (checkout / ".slurmstack").iterdir()] == ["prod"]


def test_a_shell_takes_the_exports_whatever_the_path_holds(tmp_path: Path) -> None:
    checkout = tmp_path / 'it\'s $HOME; a "path" `here`'
    lab = made(checkout, "lab", 0)
    lab.passphrase.write_text("correct horse\n")
    text = stack.shell_exports(lab)
    assert "correct horse" not in text
    # Twice, as in a shell that is used for long.
    script = f"{text}\n{text}\nenv -0"
    environment = {"PATH": os.environ["PATH"], "PULUMI_CONFIG_PASSPHRASE": "other"}
    done = subprocess.run(
        ["sh", "-eu", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    found = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if "=" in entry)
    assert found["PULUMI_BACKEND_URL"] == f"file://{checkout}/.lab/lab/state"
    assert found["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(lab.passphrase)
    assert found["SSH_AUTH_SOCK"] == str(lab.agent_socket)
    assert found["PATH"] == f"{checkout}/.venv/bin:{os.environ['PATH']}"
    assert "PULUMI_CONFIG_PASSPHRASE" not in found
