"""No secret is left where it does not belong: on any machine, during and after `up`."""

from __future__ import annotations

import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex

import pytest

from lab import machine
from lab.deploy import program_environment
from tests.lab.conftest import RunningLab
from tests.lab.secret_search import Secrets, here, journal, marks, on_node, watching
from tests.lab.test_cluster import Edit, add_cn03, edit

__all__ = ["edit"]

pytestmark = pytest.mark.lab

#: Where a secret lies, and the copies that the applier keeps of what it replaced.
OWN_PLACES = re.compile(
    r"(/var/lib/slurmstack/[a-z-]+/(previous|original))?"
    r"(/etc/munge/munge\.key(\.staged)?|/etc/slurm/jwt/[a-z]+\.pem|/etc/slurm/jwt\.key"
    r"|/etc/slurm/tls/(ca\.key|cluster\.pem)|/etc/slurm/slurmdbd\.conf)"
)


def test_secrets_are_nowhere_but_in_their_own_places(
    lab: RunningLab, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets, said = Secrets(), tmp_path / "said"
    said.mkdir()

    def pulumi(*words: str) -> None:
        done = lab.pulumi(*words)
        (said / "-".join(words[:2])).write_text(done.stdout + done.stderr)

    secrets.take(lab)
    lab.boot("cn03", fresh=True)
    # Each of them is made, or comes to a node, while all processes are watched.
    add_cn03(lab, edit)
    edit("slurmstack:jwt", {"maxLifetime": "8h", "keys": ["b", "a"], "scontrolKey": "b"})
    edit("slurmstack:rest", {"otherNames": ["rest.example"]})
    lab.ssh("ctl", "rm -f /etc/slurm/tls/ca.*")
    if "embedded engine" in lab.pulumi("about").stdout:
        # Pulumi's own language host hands secrets of the stack to the program by its environment.
        password = token_hex(16)
        lab.pulumi("config", "set", "--secret", "slurmstack:accountingPassword", password)
        secrets.add("slurmdbd's password", marks(password.encode()))
    monkeypatch.setenv("PULUMI_DEBUG_COMMANDS", "1")
    events = said / "events"
    with watching() as watched:
        pulumi("preview", "--diff")
        pulumi("preview", "--json")
        pulumi("up", "--yes", "--skip-preview", "--diff", "--event-log", str(events))
    before = {name: len(found) for name, found in secrets.known.items()}
    secrets.take(lab)
    made = {name for name, found in secrets.known.items() if len(found) > before[name]}
    assert made == {
        "RS256 private key", "HS256 key", "key of the REST CA", "key of the REST server",
    }  # fmt: skip

    pulumi("stack", "export")
    pulumi("stack", "output", "--json", "--show-secrets")
    pulumi("stack", "history", "--json")
    pulumi("config")
    assert events.stat().st_size > 0
    (said / "processes").write_bytes(b"\n".join(watched.seen))
    assert b"slurmctld" in (said / "processes").read_bytes()
    # Those that run: a machine that another file had made for itself is off.
    nodes = [node for node in lab.lab.nodes() if machine.is_running(lab.lab, node)]
    assert {"ctl", "login01", "cn01", "cn02", "cn03"} <= set(nodes)
    with ThreadPoolExecutor(2) as pool:
        for node, text in zip(nodes, pool.map(lambda node: journal(lab, node), nodes), strict=True):
            (said / f"journal-{node}").write_bytes(text)
        held = pool.map(lambda node: on_node(lab, node, secrets), nodes)
        places = dict(zip(nodes, held, strict=True))
    assert here(secrets, [said]) == {}

    for node, found in places.items():
        for path, owner in found.items():
            assert OWN_PLACES.fullmatch(path), f"{node}: {path} ({owner}) holds a secret"
            # Read by its owner alone.
            assert re.fullmatch(r"(munge|root|slurm):[46]00", owner), f"{node}: {path} ({owner})"
        assert "/etc/munge/munge.key" in found
    assert {path for path in places["ctl"] if not path.startswith("/var")} == {
        "/etc/munge/munge.key", "/etc/munge/munge.key.staged",
        "/etc/slurm/jwt/a.pem", "/etc/slurm/jwt/b.pem",
        "/etc/slurm/jwt.key", "/etc/slurm/tls/ca.key", "/etc/slurm/tls/cluster.pem",
        "/etc/slurm/slurmdbd.conf",
    }  # fmt: skip

    # On the operator's side: the state and all else of the lab but the nodes' own disks, what the
    # program remembers, temporary folders and the history of shells.
    folder = lab.lab.checkout / ".lab" / lab.name
    ours = [path for path in folder.iterdir() if path.name != "nodes"]
    ours += folder.glob("nodes/*/console.log")
    ours += [lab.settings, lab.lab.checkout / ".slurmstack", Path(tempfile.gettempdir())]
    ours += Path(program_environment(lab.lab).get("HOME", "/root")).glob(".*history")
    # The disks have been searched from within; they may lie below the temporary folder.
    assert here(secrets, ours, [folder / "nodes" / node for node in nodes]) == {}
