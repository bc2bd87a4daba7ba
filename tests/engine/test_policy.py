"""The policy pack on a real `pulumi`: what keeps the rules previews, what breaks one does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from operations import apply, plan
from operations.preview import NoPreview
from tests.engine.test_rollout import HARDWARE, real

PROJECT = Path(__file__).parents[2]
CODE = (
    "__main__.py", "settings", "discovery", "templates", "remote", "on_node", "engine", ".venv",
)  # fmt: skip
PASSPHRASE = "not a secret"
KEY = "k" * 64
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGbM0S0Qe0nGJm3XTXpXh1XgFzqQ2J1mZb0v2p4M3b6N"


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack's own, as policy/README.md makes it; that of the checkout where there is one."""
    if real() is None:
        pytest.skip("no real pulumi with pulumi-resource-command on PATH")
    made = PROJECT / "policy" / ".venv"
    if made.exists():
        return made
    made = tmp_path_factory.mktemp("policy") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", made], check=True)
    wanted = PROJECT / "policy" / "requirements.txt"
    words = [str(made / "bin" / "pip"), "--quiet", "install", "-r", str(wanted)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=400, check=False)
    if done.returncode != 0:
        pytest.skip(f"the pack's environment cannot be had: {done.stderr.strip()[-200:]}")
    return made


class Checkout:
    """A stack that is not deployed, and a program that may be edited."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder = folder
        for name in CODE:
            (folder / name).symlink_to(PROJECT / name)
        shutil.copy(PROJECT / "Pulumi.yaml", folder)
        shutil.copytree(PROJECT / "components", folder / "components")
        leave_out = shutil.ignore_patterns(".venv")
        shutil.copytree(PROJECT / "policy", folder / "policy", ignore=leave_out)
        (folder / "policy" / ".venv").symlink_to(environment)
        (folder / "state").mkdir()
        self.environment = {
            "PULUMI_BACKEND_URL": f"file://{self.folder}/state",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        self.pulumi("stack", "init", "sim")
        hosts = {
            "ctl": {"address": "127.0.0.1", "hostKey": HOST_KEY},
            "cn01": {"address": "127.0.0.2", "hostKey": HOST_KEY},
        }
        self.settings(
            cluster={"name": "sim"},
            roles={"controller": "ctl"},
            partitions={"main": {"Nodes": "ALL"}},
            accounting={},
            hosts=hosts,
            nodes=[{"hosts": "cn01", "hardware": HARDWARE}],
        )

    def settings(self, **changes: object) -> None:
        file = self.folder / "Pulumi.sim.yaml"
        document = yaml.safe_load(file.read_text())
        new = {f"slurmstack:{key}": value for key, value in changes.items()}
        document["config"] = document.get("config", {}) | new
        file.write_text(yaml.safe_dump(document))

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.folder / "components" / name
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    def pulumi(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(
            ["pulumi", *words, "--non-interactive"],
            cwd=self.folder, env=os.environ | self.environment,
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def broken(self) -> set[str]:
        """The rules that a preview names as broken; it fails if there are any."""
        place = ("--policy-pack", "policy", "--suppress-outputs", "--stack", "sim")
        code, said = self.pulumi("preview", *place)
        assert "slurmstack@v0.1.0 (local: policy)" in said, said
        assert KEY not in said
        words = [line.split() for line in said.splitlines()]
        names = {it[2] for it in words if it[:2] == ["-", "[mandatory]"]}
        assert (code != 0) == bool(names), said
        return names


@pytest.fixture
def checkout(tmp_path: Path, environment: Path) -> Checkout:
    return Checkout(tmp_path, environment)


def test_what_this_project_deploys_keeps_the_rules(checkout: Checkout) -> None:
    checkout.pulumi("config", "set", "--secret", "slurmstack:mungeKey", KEY)
    assert checkout.broken() == set()


def _no_host_key(checkout: Checkout) -> None:
    checkout.settings(
        hosts={"ctl": {"address": "127.0.0.1", "hostKey": HOST_KEY}, "cn01": "127.0.0.2"}
    )


def _shown(checkout: Checkout) -> None:
    checkout.edit("bundle_resource.py", "command.Logging.NONE", "command.Logging.STDOUT")


def _jobs_may_be_lost(checkout: Checkout) -> None:
    checkout.settings(guards={"allowJobLoss": True})


def _no_destroy_guard(checkout: Checkout) -> None:
    old = "cls(name, assembly, bundle, unless_idle(assembly.deployed, assembly.hosts))"
    checkout.edit("guards/destroy_guard.py", old, "bundle, unless_idle")


def _readable_setting(checkout: Checkout) -> None:
    checkout.settings(mungeKey=KEY)


def _readable_key(checkout: Checkout) -> None:
    checkout.pulumi("config", "set", "--secret", "slurmstack:mungeKey", KEY)
    checkout.edit("keys/munge_key.py", "secret=True", "secret=False")
    checkout.edit(
        "keys/munge_key.py", "pulumi.Output.secret(value)", "pulumi.Output.from_input(value)"
    )


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (_no_host_key, "host-keys-pinned"),
        (_shown, "logging-off"),
        (_jobs_may_be_lost, "guarded"),
        (_no_destroy_guard, "deletion-guarded"),
        (_readable_setting, "settings-encrypted"),
        (_readable_key, "no-cleartext-secret"),
    ],
)
def test_an_edit_that_breaks_a_rule_is_refused(
    checkout: Checkout, edit: Callable[[Checkout], None], rule: str
) -> None:
    edit(checkout)
    assert checkout.broken() == {rule}


def test_slurmstack_obeys_the_pack_that_the_environment_names(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pulumi's variable for the option: one for `plan`, `apply` and all else that runs `pulumi`."""
    pulumi = shutil.which("pulumi")
    assert pulumi
    # The verbs take the engine beside their interpreter, which may be the embedded one.
    monkeypatch.setattr(sys, "executable", str(Path(pulumi).with_name("python")))
    for name, value in {**checkout.environment, "PATH": os.environ["PATH"]}.items():
        monkeypatch.setenv(name, value)
    nobody = {"port": 1, "hostKey": HOST_KEY}
    hosts = {
        name: {"address": f"127.0.0.{n}", **nobody} for n, name in enumerate(("ctl", "cn01"), 1)
    }
    checkout.settings(hosts=hosts, ssh={"dialErrorLimit": 0, "perDialTimeout": 2})
    _shown(checkout)
    planned = plan.make("sim", checkout.folder, offline=True)
    assert planned.plan.any

    monkeypatch.setenv("PULUMI_OPTION_POLICY_PACK", "policy")
    rule = "logging-off: No output of commands with stdin. logging is stdout: "
    with pytest.raises(NoPreview, match=f"^stack sim: {rule}") as refused:
        plan.make("sim", checkout.folder, offline=True)
    assert str(refused.value).count("logging-off") == 1
    # What was planned without it does not pass it either.
    said: list[str] = []
    with pytest.raises(apply.NotApplied):
        apply.up(planned, said.append)
    assert any(line.startswith(rule) for line in said), said
