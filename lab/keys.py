"""Keys of a lab: one for its user, in an agent of its own, and one for each node's sshd."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from lab.errors import LabError
from lab.names import Lab
from lab.system import is_alive, processes, run, wait_for

#: Of the stack's secrets. It is in the repository, since what the settings hold encrypted must be
#: readable after `make lab-down`, which leaves nothing of the lab, and since `make lab` must not
#: change the settings. What the lab itself keeps encrypted is in a folder of root's alone.
PASSPHRASE = "slurmstack's lab: this passphrase keeps no secret"

# sockaddr_un holds 108 bytes, the last of them zero; ssh-agent binds to a longer temporary name.
SOCKET_PATH = 90


def make_user_key(lab: Lab) -> None:
    """The key that nodes let in, for root and the lab's user; made once."""
    if not lab.key.exists():
        _generate(lab.key, f"slurmstack lab {lab.name}")


def make_host_key(lab: Lab, node: str) -> Path:
    """A node's host key, made once on this side, so that it is known before the first connect."""
    path = lab.node_folder(node) / "ssh_host_ed25519_key"
    if not path.exists():
        _generate(path, f"root@{node}")
    return path


def public(path: Path) -> str:
    """The public half, as in authorized_keys."""
    return path.with_name(f"{path.name}.pub").read_text().strip()


def write_ssh_files(lab: Lab) -> None:
    """known_hosts with every node's key, and an ssh_config that uses it."""
    known, config = [], []
    for node in lab.nodes():
        kind, key = public(make_host_key(lab, node)).split()[:2]
        known.append(f"{lab.address(node)},{node} {kind} {key}\n")
        config.append(f"Host {node}\n    HostName {lab.address(node)}\n")
    # The machines are on this host's own bridge. The key exchange that ssh(1) would choose, against
    # computers of the future, takes 0.13 s of a processor; this one takes 0.01 s.
    config.append(
        "Host *\n    User root\n    HostKeyAlgorithms ssh-ed25519\n"
        "    KexAlgorithms curve25519-sha256\n"
        f'    IdentityFile "{lab.key}"\n    IdentitiesOnly yes\n    IdentityAgent none\n'
        f'    UserKnownHostsFile "{lab.known_hosts}"\n    GlobalKnownHostsFile /dev/null\n'
        "    StrictHostKeyChecking yes\n    ConnectTimeout 10\n    BatchMode yes\n"
    )
    _replace(lab.known_hosts, "".join(known))
    _replace(lab.ssh_config, "".join(config))


def make_passphrase(lab: Lab) -> None:
    """The file with the passphrase of the stack's secrets, written once."""
    if not lab.passphrase.exists():
        _replace(lab.passphrase, PASSPHRASE + "\n", mode=0o600)


def agent_up(lab: Lab) -> bool:
    """Start the agent and give it the lab's key; False if it runs and has the key."""
    if len(os.fsencode(lab.agent_socket)) > SOCKET_PATH:
        raise LabError(
            f"{lab.agent_socket} is too long for a socket: clone into a folder with a shorter path"
        )
    env = {"SSH_AUTH_SOCK": str(lab.agent_socket)}
    listed = run(["ssh-add", "-L"], env=env, check=False)
    if listed.returncode == 0 and public(lab.key).split()[1] in listed.stdout:
        return False
    if listed.returncode == 2:  # nobody answers at the socket
        agent_down(lab)
        run(["ssh-agent", "-a", lab.agent_socket])
    run(["ssh-add", "-q", lab.key], env=env)
    return True


def agent_down(lab: Lab) -> bool:
    """End the agent and remove its socket; False if none ran."""
    # Found by its arguments, not by a pid file: its number may be another process's by now.
    agents = [
        pid
        for pid, words in processes()
        if Path(words[0]).name == "ssh-agent" and str(lab.agent_socket) in words
    ]
    for pid in agents:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not any(map(is_alive, agents)), seconds=10, what="ssh-agent did not end")
    lab.agent_socket.unlink(missing_ok=True)
    return bool(agents)


def _generate(path: Path, comment: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Made under another name, so that a crash leaves no private key without its public half.
    fresh = path.with_name(f"{path.name}.new")
    for leftover in (fresh, fresh.with_name(f"{fresh.name}.pub")):
        leftover.unlink(missing_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", fresh])
    fresh.with_name(f"{fresh.name}.pub").rename(path.with_name(f"{path.name}.pub"))
    fresh.rename(path)


def _replace(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as sink:
        sink.write(text)
    fresh.rename(path)
