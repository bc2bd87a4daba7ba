"""The lab's commands, as the Makefile and people call them: `python -m lab --help`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import deploy, lifecycle, machine, network, stack
from lab.errors import LabError
from lab.names import DEFAULT_NAME, DEFAULT_NODES, Lab, parse_nodes
from lab.progress import Progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 with one line on what failed, or ssh's."""
    options = _parser().parse_args(arguments)
    # Told to end, it ends what it runs, as it does after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(options.run(options))
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab", description="Real nodes on one machine. See docs/lab.md."
    )
    parser.add_argument(
        "--lab",
        default=os.environ.get("LAB") or DEFAULT_NAME,
        help="the lab's name (default: $LAB, else lab)",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="boot the machines, deploy the stack, run a job")
    up.add_argument(
        "--nodes",
        default=os.environ.get("NODES") or ",".join(DEFAULT_NODES),
        help="a number of machines, or names (default: $NODES, else ctl,login01,cn01,cn02)",
    )
    up.add_argument("--machines-only", action="store_true", help="boot, and deploy nothing")
    up.set_defaults(run=_up)

    down = commands.add_parser("down", help="end the machines and remove all of the lab")
    down.set_defaults(run=_down)

    status = commands.add_parser("status", help="say what runs; exit code 3 if not all does")
    status.set_defaults(run=_status)

    env = commands.add_parser("env", help="print shell exports for the lab's stack")
    env.set_defaults(run=_env)

    node_up = commands.add_parser("node-up", help="boot one more node, or one that was down")
    node_up.add_argument("node")
    node_up.add_argument("--fresh", action="store_true", help="with a new disk")
    node_up.add_argument(
        "--virtual", action="store_true", help="a new one with a kernel of its own (docs/lab.md)"
    )
    node_up.add_argument(
        "--disks", type=int, default=0, metavar="NUMBER", help="of a virtual one: NVMe, empty"
    )
    node_up.set_defaults(run=_node_up)

    node_down = commands.add_parser("node-down", help="cut a node's power; its disk stays")
    node_down.add_argument("node")
    node_down.add_argument("--soft", action="store_true", help="shut it down instead")
    node_down.set_defaults(run=_node_down)

    ssh = commands.add_parser("ssh", help="a shell or a command on a node: ssh ctl -- sinfo")
    ssh.add_argument("node")
    ssh.add_argument("command", nargs=argparse.REMAINDER)
    ssh.set_defaults(run=_ssh)
    return parser


def _up(options: argparse.Namespace) -> int:
    progress = Progress()
    name, nodes = options.lab, parse_nodes(options.nodes)
    lifecycle.require_root()
    if options.machines_only:
        lab, changed = lifecycle.up(name, nodes, progress)
        _say_done(lab, progress, changed)
        return 0
    checkout = lifecycle.checkout()
    (checkout / ".lab" / name / "log").mkdir(parents=True, exist_ok=True)
    log = checkout / ".lab" / name / "log" / "engine.log"
    with ThreadPoolExecutor(max_workers=1) as pool:
        # May try a download; the machines boot meanwhile.
        engine = pool.submit(deploy.choose_engine, checkout, log)
        lab, changed = lifecycle.up(name, nodes, progress)
        progress.say(engine.result())
    with lifecycle.locked(lab):
        changed = deploy.make_stack(lab, progress) or changed
        progress.title(f"pulumi up --yes --stack {lab.name}")
        deploy.deploy(lab)
    deploy.show(lab, progress)
    _say_done(lab, progress, changed)
    return 0


def _say_done(lab: Lab, progress: Progress, changed: bool) -> None:
    what = "is up" if changed else "was up; its machines, network and keys are unchanged"
    progress.say(f"the lab {lab.name} {what}")
    name = "" if lab.name == DEFAULT_NAME else f" LAB={lab.name}"
    progress.say(f'next: eval "$(make -s env{name})"; slurmstack inventory')
    progress.say(f"end it with: make lab-down{name}")


def _down(options: argparse.Namespace) -> int:
    lifecycle.down(options.lab, Progress())
    return 0


def _status(options: argparse.Namespace) -> int:
    lab = lifecycle.existing(options.lab)
    if lab is None:
        print(f"there is no lab named {options.lab}")
        return 3
    bridge = network.owner(lab.bridge) == str(lab.checkout)
    print(f"bridge {lab.bridge} {lab.gateway}/24: {'up' if bridge else 'missing'}")
    running = [machine.is_running(lab, node) for node in lab.nodes()]
    for node, runs in zip(lab.nodes(), running, strict=True):
        print(f"{node} {lab.address(node)}: {'running' if runs else 'off'}")
    return 0 if bridge and all(running) else 3


def _env(options: argparse.Namespace) -> int:
    lab = lifecycle.require(options.lab)
    if not Path(lab.agent_socket).exists():
        raise LabError(f"the lab {lab.name} is not up: `make lab LAB={lab.name}` first")
    print(stack.shell_exports(lab))
    return 0


def _node_up(options: argparse.Namespace) -> int:
    lab = lifecycle.require(options.lab)
    how = {"fresh": options.fresh, "virtual": options.virtual, "disks": options.disks}
    lifecycle.node_up(lab, options.node, Progress(), **how)
    return 0


def _node_down(options: argparse.Namespace) -> int:
    lab = lifecycle.require(options.lab)
    lifecycle.node_down(lab, options.node, Progress(), hard=not options.soft)
    return 0


def _ssh(options: argparse.Namespace) -> int:
    lab = lifecycle.require(options.lab)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    words = ["ssh", "-F", str(lab.ssh_config), options.node, *command]
    os.execvp(words[0], words)
