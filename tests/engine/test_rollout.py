"""Rollouts over simulated hosts: who waits for whom, what stops, and what is left as it was.

With a real `pulumi` on PATH (and its plugins) the same is asked of that engine.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import yaml

from bench.simulated import address, answer
from settings.hostlist import expand

PROJECT = Path(__file__).parents[2]
PROGRAM = (
    "__main__.py", "settings", "discovery", "components", "templates", "remote", "on_node",
    "engine", ".venv",
)  # fmt: skip
NAMES = ["ctl", *(f"cn{number:02}" for number in range(1, 14))]
HARDWARE = {
    "CPUs": 2, "SocketsPerBoard": 1, "CoresPerSocket": 2, "ThreadsPerCore": 1, "RealMemory": 2000,
}  # fmt: skip


@dataclass(frozen=True)
class Sent:
    """A bundle that a host got: when it came, when it was answered, and whether well."""

    node: str
    role: str
    verb: str
    began: float
    ended: float
    well: bool


class Hosts:
    """Simulated hosts, each on an address of its own; they take a moment for each bundle."""

    def __init__(self, folder: Path) -> None:
        self.sent: list[Sent] = []
        #: Whose key alone is let in; None: everybody.
        self.only: asyncssh.SSHKey | None = None
        #: Whether a bundle of this node and role fails.
        self.fails: Callable[[str, str], bool] = lambda node, role: False
        self._folder = folder
        # What is asked beside bundles: whether slurmd runs, and whether credentials are understood.
        for tool in ("systemctl", "unmunge"):
            (folder / tool).write_text("#!/bin/sh\n")
        (folder / "munge").write_text("#!/bin/sh\necho MUNGE:c2ltdWxhdGVk:\n")
        for tool in ("systemctl", "unmunge", "munge"):
            (folder / tool).chmod(0o755)
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self.host_key = self._key.export_public_key("openssh").decode().strip()
        self.port = 0
        self._listeners: dict[str, asyncssh.SSHAcceptor] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        for node in NAMES:
            self.power_on(node)

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def power_on(self, node: str) -> None:
        self._call(self._listen(node))

    def power_off(self, node: str) -> None:
        self._call(self._close(node))

    async def _listen(self, node: str) -> None:
        owner = self

        class Server(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return owner.only is not None

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                return owner.only is not None and key.public_data == owner.only.public_data

        async def serve(process: asyncssh.SSHServerProcess[str]) -> None:
            began, command = time.monotonic(), process.command or ""
            stdin = await process.stdin.read()
            if command == "sh -s":
                process.stdout.write(await self._run(stdin))
                process.exit(0)
                return
            words = [line.split() for line in stdin.splitlines()[:3]]
            heads = {word[0]: word[1] for word in words if len(word) == 2}
            role = heads.get("role", "")
            well = not self.fails(node, role)
            await asyncio.sleep(0.05)
            if role:
                verb = command.split()[-1]
                self.sent.append(Sent(node, role, verb, began, time.monotonic(), well))
            if well:
                process.stdout.write(answer(command, stdin) + "\n")
            else:
                process.stderr.write(f"slurmstack: {node}: test: it fails; mend it\n")
            process.exit(0 if well else 1)

        self._listeners[node] = await asyncssh.listen(
            address(NAMES.index(node)),
            self.port,
            server_factory=Server,
            server_host_keys=[self._key],
            process_factory=serve,
        )
        self.port = self._listeners[node].sockets[0].getsockname()[1]

    async def _run(self, script: str) -> str:
        pipe = asyncio.subprocess.PIPE
        path = {"PATH": f"{self._folder}:/usr/bin:/bin"}
        shell = await asyncio.create_subprocess_exec("sh", "-s", stdin=pipe, stdout=pipe, env=path)
        return (await shell.communicate(script.encode()))[0].decode()

    async def _close(self, node: str) -> None:
        self._listeners[node].close()
        await self._listeners[node].wait_closed()

    def end(self) -> None:
        for node in NAMES:
            self.power_off(node)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class Cluster:
    """A stack of its own on simulated hosts."""

    def __init__(self, folder: Path, engine: list[str], hosts: Hosts, agent: Path) -> None:
        self.folder, self.hosts, self._engine, self._agent = folder, hosts, engine, agent
        for name in PROGRAM:
            (folder / name).symlink_to(PROJECT / name)
        shutil.copy(PROJECT / "Pulumi.yaml", folder / "Pulumi.yaml")
        (folder / "state").mkdir()
        self.pulumi("stack", "init", "sim")
        self._secrets = yaml.safe_load((folder / "Pulumi.sim.yaml").read_text())
        self.nodes = "cn[01-12]"
        self.settings: dict[str, Any] = {
            "cluster": {"name": "sim"},
            "ssh": {"dialErrorLimit": 0, "perDialTimeout": 2},
            "roles": {"controller": "ctl"},
            "partitions": {"main": {"Nodes": "ALL"}},
            "rollout": {"canary": 1, "batch": 4},
        }

    def pulumi(self, *arguments: str, check: bool = True) -> str:
        environment = {
            **os.environ,
            "SSH_AUTH_SOCK": str(self._agent),
            "PULUMI_BACKEND_URL": f"file://{self.folder}/state",
            "PULUMI_HOME": str(self.folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "not a secret",
            "PULUMI_CONTINUE_ON_ERROR": "true",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        done = subprocess.run(
            [*self._engine, *arguments, "--non-interactive"],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=240,
            check=False,
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stdout + done.stderr
        assert check or done.returncode != 0, f"it was to fail: {done.stdout}"
        return done.stdout + done.stderr

    def up(self, *options: str, check: bool = True) -> str:
        """Deploy the settings as they are now. What was sent is what this run sent."""
        config: dict[str, Any] = {
            **self.settings,
            "hosts": {
                name: {
                    "address": address(number),
                    "port": self.hosts.port,
                    "hostKey": self.hosts.host_key,
                }
                for number, name in enumerate(NAMES)
            },
            "nodes": [{"hosts": self.nodes, "hardware": HARDWARE}],
        }
        keyed = {f"slurmstack:{key}": value for key, value in config.items()}
        file = self.folder / "Pulumi.sim.yaml"
        file.write_text(yaml.safe_dump({**(self._secrets or {}), "config": keyed}))
        self.hosts.sent.clear()
        return self.pulumi("up", "--yes", "--skip-preview", *options, check=check)

    def sent(self, role: str) -> dict[str, Sent]:
        return {one.node: one for one in self.hosts.sent if one.role == role}

    def state(self) -> list[dict[str, Any]]:
        text = self.pulumi("stack", "export")
        resources: list[dict[str, Any]] = json.loads(text)["deployment"]["resources"]
        return resources


def real() -> list[str] | None:
    found = shutil.which("pulumi")
    return ["pulumi"] if found and shutil.which("pulumi-resource-command") else None


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    hosts = Hosts(tmp_path_factory.mktemp("hosts"))
    yield hosts
    hosts.end()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of an SSH agent that holds a key."""
    folder = tmp_path_factory.mktemp("agent")
    socket, key = folder / "socket", folder / "key"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL) as it:
        try:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
            words = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
            until = time.monotonic() + 30
            # 2: there is none to talk to yet (ssh-add(1)).
            while subprocess.run(["ssh-add", "-l"], env=words, capture_output=True).returncode == 2:
                assert time.monotonic() < until, "the agent did not begin to listen"
                time.sleep(0.01)
            subprocess.run(["ssh-add", "-q", key], env=words, check=True)
            yield socket
        finally:
            it.terminate()


@pytest.fixture(params=["embedded", "real"])
def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, machines: Hosts, agent: Path
) -> Iterator[Cluster]:
    """Twelve nodes, deployed: cn01 is the canary, three batches of four follow."""
    engine = real() if request.param == "real" else [sys.executable, "-m", "engine"]
    if engine is None:
        pytest.skip("no real pulumi with pulumi-resource-command on PATH")
    cluster = Cluster(tmp_path, engine, machines, agent)
    cluster.up()
    yield cluster
    machines.fails = lambda node, role: False


#: As the settings of these tests have them.
TURNS = [{"cn01"}, {*expand("cn[02-05]")}, {*expand("cn[06-09]")}, {*expand("cn[10-12]")}]
ALL = set().union(*TURNS)


def change(cluster: Cluster) -> None:
    """What reaches each node's programs and, by way of the controller, its slurmd."""
    cluster.settings["jobEnvironment"] = {"UCX_TLS": "rc"}
    cluster.settings["slurm"] = {"SlurmdSpoolDir": "/var/spool/slurmd-b"}


def in_turns(sent: dict[str, Sent]) -> bool:
    return all(
        max(sent[node].ended for node in before) <= min(sent[node].began for node in after)
        for before, after in itertools.pairwise(TURNS)
    )


def test_each_role_goes_batch_after_batch_and_keys_go_at_once(cluster: Cluster) -> None:
    # In a first deployment nobody waits.
    assert not in_turns(cluster.sent("slurmd"))
    change(cluster)
    cluster.settings["limits"] = {}
    cluster.up()
    for role in ("system", "programs", "slurmd"):
        sent = cluster.sent(role)
        assert set(sent) >= ALL, role
        assert in_turns(sent), role
    controller = cluster.sent("slurmctld")["ctl"]
    assert max(one.ended for one in cluster.sent("programs").values()) <= controller.began
    assert controller.ended <= min(one.began for one in cluster.sent("slurmd").values())
    cluster.settings["mungeKey"] = "k" * 64
    cluster.up()
    assert set(cluster.sent("munge-key")) >= ALL
    assert not in_turns(cluster.sent("munge-key"))


def test_what_both_ends_must_have_alike_goes_to_all_nodes_at_once(cluster: Cluster) -> None:
    """A slurmd with another port, or other credentials, than slurmctld is out of contact; with one
    batch after another, SlurmdTimeout would end the jobs of the last."""
    cluster.settings["slurm"] = {"SlurmdPort": 6918}
    cluster.up()
    assert set(cluster.sent("slurmd")) == ALL
    assert not in_turns(cluster.sent("slurmd"))
    assert cluster.sent("slurmctld")["ctl"].ended <= cluster.sent("slurmd")["cn01"].began
    cluster.settings["slurm"]["SlurmdSpoolDir"] = "/var/spool/slurmd-b"
    cluster.up()
    assert in_turns(cluster.sent("slurmd"))


def test_a_canary_that_fails_stops_all_others_as_they_were(cluster: Cluster) -> None:
    cluster.hosts.fails = lambda node, role: node == "cn01" and role == "slurmd"
    change(cluster)
    said = cluster.up(check=False)
    assert set(cluster.sent("slurmd")) == {"cn01"}
    assert "rollout stopped: failed cn01 | not begun cn[02-12]" in said, said[-3000:]
    before = {one["urn"]: one for one in cluster.state() if "cn05-slurmd" in one["urn"]}
    assert "slurmd-b" not in json.dumps(before)
    cluster.hosts.fails = lambda node, role: False
    cluster.up()
    assert set(cluster.sent("slurmd")) == ALL
    assert in_turns(cluster.sent("slurmd"))


def test_a_driver_ends_with_its_boot_where_a_node_has_one(cluster: Cluster) -> None:
    """And with itself on a canary that nobody may reboot."""
    cluster.settings["nvidia"] = {"hosts": "cn[01-12]", "driver": {"version": "570.1.1-1"}}
    cluster.settings["boot"] = {"hosts": "cn[02-12]"}
    cluster.hosts.fails = lambda node, role: node == "cn01" and role == "nvidia"
    said = cluster.up(check=False)
    assert set(cluster.sent("nvidia")) == {"cn01"}
    assert "rollout stopped: failed cn01 | not begun cn[02-12]" in said, said[-3000:]
    cluster.hosts.fails = lambda node, role: node in ("cn02", "cn03") and role == "booted"
    said = cluster.up(check=False)
    assert set(cluster.sent("nvidia")) == {"cn01", *expand("cn[02-05]")}
    assert "not begun cn[06-12]" in said, said[-3000:]


def test_a_program_that_fails_ends_and_begins_no_batch(cluster: Cluster) -> None:
    """At its last component, when all the others wait for their turns."""
    main = cluster.folder / "__main__.py"
    text = main.read_text()
    main.unlink()
    broken = (
        "import components.cluster\n\n\nclass Broken:\n    @classmethod\n"
        "    def assemble(cls, assembly):\n        raise ZeroDivisionError('a fault of ours')\n\n\n"
        "components.cluster.COMPONENTS += (Broken,)\n"
    )
    main.write_text(broken + text)
    change(cluster)
    said = cluster.up(check=False)
    assert "ZeroDivisionError: a fault of ours" in said, said[-3000:]
    assert set(cluster.sent("slurmd")) <= {"cn01"}


def test_more_failures_than_may_be_stop_the_batches_after(cluster: Cluster) -> None:
    cluster.settings["rollout"] |= {"mayFail": 1}
    change(cluster)
    cluster.hosts.fails = lambda node, role: role == "slurmd" and node in ("cn03", "cn07")
    said = cluster.up(check=False)
    # One may fail; the second, in the batch after, is one too many.
    assert set(cluster.sent("slurmd")) == TURNS[0] | TURNS[1] | TURNS[2]
    assert "failed cn[03,07] | not begun cn[10-12]" in said


def test_a_node_that_cannot_stage_a_key_keeps_all_at_the_old_one(cluster: Cluster) -> None:
    cluster.settings["limits"] = {}
    cluster.settings["mungeKey"] = "k" * 64
    cluster.hosts.fails = lambda node, role: node == "cn01" and role == "system"
    cluster.up(check=False)
    assert set(cluster.sent("system")) & ALL == {"cn01"}
    # Those that the rollout passed over stage the key all the same.
    assert set(cluster.sent("munge-staged")) >= ALL - {"cn01"}
    assert not cluster.sent("munge-key")
    cluster.hosts.fails = lambda node, role: False
    cluster.up()
    assert set(cluster.sent("munge-key")) >= {*ALL, "ctl"}


def test_a_dead_canary_within_the_allowed_number_stops_nobody(cluster: Cluster) -> None:
    cluster.hosts.power_off("cn01")
    try:
        change(cluster)
        cluster.settings["rollout"] |= {"mayFail": "5%"}
        said = cluster.up(check=False)
    finally:
        cluster.hosts.power_on("cn01")
    assert set(cluster.sent("slurmd")) == ALL - {"cn01"}, said[-3000:]
    assert "rollout stopped" not in said
    assert "cn01" in said


def test_nodes_that_come_and_go_touch_no_other(cluster: Cluster) -> None:
    assert other_nodes(cluster) == set()
    cluster.nodes = "cn[01-13]"
    cluster.up()
    assert {one.node for one in cluster.hosts.sent} == {"ctl", "cn13"}
    cluster.nodes = "cn[01,03-13]"
    cluster.up()
    assert {one.node for one in cluster.hosts.sent} == {"ctl", "cn02"}
    change(cluster)
    cluster.up()
    # The state of a node names no other: --target, destroy and plans are as they were.
    assert other_nodes(cluster) == set()


def other_nodes(cluster: Cluster) -> set[str]:
    """Dependencies of a compute node's resources on another's, in the state."""
    found = set()
    for resource in cluster.state():
        name = resource["urn"].rpartition("::")[2]
        for urn in resource.get("dependencies", ()):
            on = urn.rpartition("::")[2]
            if name[:2] == on[:2] == "cn" and name[:4] != on[:4]:
                found.add(f"{name} on {on}")
    return found


def test_a_target_waits_for_nobody_who_is_no_target(cluster: Cluster) -> None:
    change(cluster)
    found = [one["urn"] for one in cluster.state() if one["urn"].endswith("::cn12-slurmd")]
    cluster.up("--target", found[0])
    assert {one.node for one in cluster.hosts.sent} == {"cn12"}
