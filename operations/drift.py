"""`slurmstack drift`: what is other on the machines than the state says; nothing is changed.

Each host is sent the bundles that the state holds of it, over one connection, and compares them by
the applier's own `compare`, which travels along: so it is the same on a machine that has lost its
applier, or has an older one. The controller comes last, since it decodes what the others' munged
encoded, and says what slurmctld and slurmdbd run by (on_node/cluster_drift.py).
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.accounting.slurmdbd import RECONCILE
from components.controller.slurm_controller import SLURM_CONF
from components.host.applier import ROLE as APPLIER_ROLE
from components.keys import jwt_key_pair
from components.rest.slurmrestd import TLS
from on_node.slurm_state import file_of_bundle
from operations.cluster import Cluster
from operations.on_node_program import program
from operations.refused import Refused
from operations.replace import wish
from operations.stack import Applied
from operations.up import up
from remote.answer import Answer, AnswerError, parse_answer
from remote.commands import APPLIER, APPLIER_PATH, STATE_PATH, take_back
from remote.comparison import Difference, answered, read_comparison
from remote.contact import ContactError, Reply, run_on_hosts, wait_for
from remote.framing import END
from remote.host import Host
from settings import Settings
from templates.rendering import render

#: A host's own looking; that of the controller asks slurmctld and slurmdbd, too.
SECONDS = 120.0
#: All at once: what each does takes longer on the host than here.
CONNECTIONS = 256
#: Where slurmd and sackd keep what slurmctld served.
_SERVED = "/run/slurm/conf"
#: Below these, whatever lies beside files of ours was put there by hand; so does it among a unit's
#: drop-ins.
_OURS = ("/etc/slurm", "/etc/slurmstack", "/usr/local/lib/slurmstack")
_DROP_INS = re.compile(r"/etc/systemd/system/([^/]+)\.d")
#: Made on the host by programs of bundles, so that no bundle names them.
_MADE_FOLDERS = (jwt_key_pair.FOLDER, TLS)
_MADE = (jwt_key_pair.JWKS, jwt_key_pair.HS256, APPLIER_PATH)

#: What `--what` takes → kinds of differences that a bundle puts right.
WHAT = {
    "packages": ("package",),
    "users": ("user", "group"),
    "directories": ("directory",),
    "files": ("file", "link", "absent"),
    "commands": ("command",),
    "units": ("unit",),
    "roles": ("role",),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is other than it should be."""

    node: str
    #: Those of `remote.comparison`, and: machine, munge, served, hand-made, parameter, node,
    #: partition, accounting.
    kind: str
    name: str
    found: str
    #: Whose bundle puts it right; None where none does.
    role: str | None = None
    #: What puts it right instead, as typed on `where`.
    command: str | None = None
    where: str | None = None
    #: From what was deployed to what is there.
    diff: tuple[str, ...] = ()


@dataclass
class Report:
    """What all hosts said."""

    #: Hosts that were compared.
    compared: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    #: Host → why it could not be asked, on one line.
    unreachable: dict[str, str] = field(default_factory=dict)
    #: What could not be compared on hosts that answered, a line each.
    failed: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """2 where something differs, 1 where not all could be seen, 0 where nothing differs."""
        return 2 if self.findings else 1 if self.unreachable or self.failed else 0


def look(
    settings: Settings,
    hosts: Mapping[str, Host],
    held: Sequence[Applied],
    names: Iterable[str] | None = None,
) -> Report:
    """Compare hosts with the state.

    Args:
        settings: the stack's.
        hosts: how its hosts are reached.
        held: what the state holds (`operations.stack.applied`).
        names: which hosts; None for all. The controller is asked only if it is one of them.
    """
    of_host: dict[str, list[Applied]] = defaultdict(list)
    for one in held:
        of_host[one.node].append(one)
    wanted = [host for name, host in hosts.items() if names is None or name in names]
    asked = [host for host in wanted if not host.lost and host.name in of_host]
    report = Report()
    for host in wanted:
        if not host.lost and host.name not in of_host:
            report.failed.append(f"{host.name}: not deployed yet; pulumi up deploys it")
    controller = settings.roles.controller
    others = [host for host in asked if host.name != controller]
    answers = _ask(others, lambda host: script(host.name, of_host[host.name], settings), report)
    told = {host.name: judge(host.name, of_host[host.name], answers[host.name], report)
            for host in others if host.name in answers}  # fmt: skip
    heads = [host for host in asked if host.name == controller]
    credentials = {name: facts["munge"] for name, facts in told.items() if "munge" in facts}
    answers = _ask(
        heads, lambda host: script(host.name, of_host[host.name], settings, credentials), report
    )
    for host in heads:
        if host.name in answers:
            head = judge(host.name, of_host[host.name], answers[host.name], report)
            _served(told, head, of_host[host.name], report, controller)
    report.findings.sort(key=lambda one: (one.kind, one.name, one.found, one.node))
    return report


def _ask(hosts: Sequence[Host], text: object, report: Report) -> dict[str, str]:
    replies = wait_for(
        run_on_hosts(hosts, text, seconds=SECONDS, connections=CONNECTIONS)  # type: ignore[arg-type]
    )
    return sort_replies(replies, report)


def sort_replies(replies: Mapping[str, Reply | ContactError], report: Report) -> dict[str, str]:
    """What hosts answered; why others did not goes into the report."""
    answers: dict[str, str] = {}
    for name, reply in replies.items():
        if isinstance(reply, ContactError):
            # A machine that was installed anew shows another key, as does one that is not ours.
            again = f"; then slurmstack node replace {name}" if reply.step == "host key" else ""
            report.unreachable[name] = f"{reply.step}: {reply.found}; {reply.remedy}{again}"
            continue
        refusals = re.findall(r"^slurmstack: [^:]+: (.*)", reply.stderr, re.M)
        if refusals and f"\n{END}\n" not in reply.stdout:
            report.unreachable[name] = refusals[-1]
        else:
            answers[name] = reply.stdout
    return answers


def script(
    node: str,
    held: Sequence[Applied],
    settings: Settings,
    credentials: Mapping[str, str] | None = None,
) -> str:
    """What a host runs: the applier on all its bundles, and what no bundle holds. Given
    credentials, it is the controller's."""
    bundles = [one.text for one in held if one.role != APPLIER_ROLE]
    text = "".join(bundles)
    mark = f"end-of-bundles-{hashlib.sha256(text.encode()).hexdigest()}"
    more = render(
        "drift/node.sh",
        applier=APPLIER_PATH,
        state=STATE_PATH,
        served=_SERVED,
        controller=credentials is not None,
        credentials=credentials or {},
        folders=_folders(bundles),
        made=_MADE,
        slurm_conf=SLURM_CONF,
        reconcile=RECONCILE if settings.accounting is not None else "",
        program=program("slurm_state", "cluster_drift") if credentials is not None else "",
    )
    return f"(set -- compare\n{APPLIER}) <<'{mark}'\n{text}{mark}\n{more}"


def _folders(bundles: Iterable[str]) -> list[str]:
    """The folders of these bundles in which nothing lies but what they name."""
    found = {_OURS[0], _OURS[2]}
    for text in bundles:
        holding = {path.rpartition("/")[0] for path in re.findall(r"^file (\S+)", text, re.M)}
        declared = {*re.findall(r"^directory (\S+)", text, re.M)} & holding
        found |= {
            folder
            for folder in declared
            if _DROP_INS.fullmatch(folder) or f"{folder}/".startswith(tuple(f"{o}/" for o in _OURS))
        }
    return sorted(found - {*_MADE_FOLDERS})


def judge(node: str, held: Sequence[Applied], text: str, report: Report) -> dict[str, str]:
    """Enter what a host said into the report; its facts.

    Args:
        node: the host's name.
        held: what the state holds of it.
        text: what its script printed.
        report: where to.
    """
    answer, rest = answered(text)
    facts: dict[str, str] = {}
    try:
        comparison = read_comparison(answer)
    except AnswerError as error:
        report.unreachable[node] = f"compare: {error}; see that a login there runs commands (sh -s)"
        return facts
    report.compared.append(node)
    findings = [*_of_bundles(node, comparison.differences)]
    known = {one.role for one in held}
    report.failed += [f"{node}: {role}: {why}" for role, why in comparison.failed.items()]
    for line in rest.splitlines():
        word, _, value = line.partition(" ")
        first, _, second = value.partition(" ")
        if word == "fact":
            facts[first] = second
        elif word == "served":
            facts[f"served {second}"] = first
        elif word == "role" and value not in known:
            findings.append(_begun(node, value))
        elif word == "hand-made":
            findings.append(_hand_made(node, value))
        elif word == "not-decoded":
            found = f"its credential is not decoded on {node}: {second}"
            findings.append(_munge(first, found))
        elif word == "differs":
            name, found, command = second.split("\t")
            findings.append(Finding(node, first, name, found, command=command, where=node))
        elif word == "failed":
            report.failed.append(f"{node}: slurmctld and slurmdbd: {value}")
    if "munge-failed" in facts:
        findings.append(_munge(node, f"munged encodes nothing: {facts['munge-failed']}"))
    machine = _of_machine(node, held, facts)
    if machine is not None:
        # All that was there is missing; no word of it helps.
        findings = [machine]
    elif hashlib.sha256(_text(held, APPLIER_ROLE).encode()).hexdigest() != facts.get("applier"):
        found = "content" if "applier" in facts else "missing"
        findings.append(Finding(node, "file", APPLIER_PATH, found, role=APPLIER_ROLE))
    report.findings += findings
    return facts


def _hand_made(node: str, path: str) -> Finding:
    command = f"rm {shlex.quote(path)}"
    if match := _DROP_INS.match(path):
        command += f"; systemctl daemon-reload; systemctl restart {match[1]}"
    found = "is no role's and no package's"
    return Finding(node, "hand-made", path, found, command=command, where=node)


def _begun(node: str, role: str) -> Finding:
    """A role whose first bundle failed, and that the settings then named no more: Pulumi's state
    has never held it."""
    found = "was begun on this host, and is in no bundle of the stack"
    return Finding(node, "role", role, found, command=take_back(node, role), where=node)


def _munge(node: str, found: str) -> Finding:
    mend = "timedatectl; systemctl restart munge"
    return Finding(node, "munge", "credential", found, command=mend, where=node)


def _text(held: Iterable[Applied], role: str) -> str:
    return next((one.text for one in held if one.role == role), "")


def _of_bundles(node: str, differences: Sequence[Difference]) -> Iterator[Finding]:
    """What bundles hold; with the command where applying the bundle again would change nothing."""
    others = {(one.role, one.name) for one in differences}
    for one in differences:
        command = None
        if one.kind == "unit" and one.found == "is masked":
            command = f"systemctl unmask {one.name}"
        elif one.kind in ("user", "group") and one.found.startswith("exists with "):
            option = {"user": "usermod -u", "group": "groupmod -g"}[one.kind]
            command = f"{option} {one.found.rpartition(' ')[2]} {one.name}"
        elif one.kind == "unit" and (match := re.fullmatch(r"is older than (.*)", one.found)):
            # A file that is put back is taken up, too.
            taken_up = any((one.role, path) in others for path in match[1].split(", "))
            if not taken_up:
                command = f"systemctl daemon-reload; systemctl restart {one.name}"
        where = node if command else None
        role = None if command else one.role
        yield Finding(node, one.kind, one.name, one.found, role, command, where, one.diff)


def _of_machine(node: str, held: Iterable[Applied], facts: Mapping[str, str]) -> Finding | None:
    """A machine that is not the one that was deployed."""
    known = ""
    for one in held:
        if one.role == APPLIER_ROLE:
            known = _answer(one).facts.get("machine-id", "")
    found = ""
    if facts.get("state") == "0":
        found = "was installed anew: it has nothing of what was deployed"
    elif known and facts.get("machine-id") != known:
        found = f"is another machine: its id is {facts.get('machine-id') or 'none'}, not {known}"
    if not found:
        return None
    return Finding(node, "machine", node, found, command=f"slurmstack node replace {node}")


def _answer(one: Applied) -> Answer:
    try:
        return parse_answer(one.answer)
    except AnswerError:
        return Answer(node=one.node, role=one.role)


def _served(
    told: Mapping[str, Mapping[str, str]],
    head: Mapping[str, str],
    held: Sequence[Applied],
    report: Report,
    controller: str,
) -> None:
    """Whether the daemons of other hosts run by the controller's files: as they were deployed, even
    where somebody has changed one there; a file that is no bundle's, as it is there."""
    wanted = {key: sha for key, sha in head.items() if key.startswith("served ")}
    for key in wanted:
        path = f"{Path(SLURM_CONF).parent}/{key.partition(' ')[2]}"
        for one in held:
            text = file_of_bundle(one.text, path)
            if text is not None:
                wanted[key] = hashlib.sha256(text.encode()).hexdigest()
    for node, facts in told.items():
        for key, sha in facts.items():
            if key.startswith("served ") and wanted.get(key, sha) != sha:
                report.findings.append(
                    Finding(
                        node, "served", key.partition(" ")[2], "is not what the controller serves",
                        command="scontrol reconfigure", where=controller,
                    )
                )  # fmt: skip


class NotFixed(Refused):
    """Nothing was changed, and why."""


def chosen(report: Report, what: Iterable[str]) -> list[Finding]:
    """The findings that bundles put right, of these kinds (none: all)."""
    kinds = {kind for word in what for kind in WHAT[word]}
    return [
        one for one in report.findings if one.role is not None and (not kinds or one.kind in kinds)
    ]


def kinds(what: str) -> tuple[str, ...]:
    """The words of `--what`.

    Raises:
        NotFixed: one of them is none.
    """
    words = tuple(word for word in what.split(",") if word)
    if unknown := [word for word in words if word not in WHAT]:
        raise NotFixed(f"--what {', '.join(unknown)}: expected some of {', '.join(WHAT)}")
    if not words:
        raise NotFixed(f"--what names nothing; expected some of {', '.join(WHAT)}")
    return words


def fix(findings: Sequence[Finding], held: Sequence[Applied], cluster: Cluster, yes: bool) -> None:
    """Have Pulumi apply again the bundles that put these right.

    It is the applier that puts them right, with all that a change of them needs: files are read by
    their readers first, daemons are reloaded or restarted, checks are made.

    Raises:
        NotDone: `pulumi up` failed or was declined.
    """
    roles = {(one.node, one.role) for one in findings}
    again = [one for one in held if (one.node, one.role) in roles]
    wish([f"{one.role}@{one.node}" for one in again], cluster.file())
    up(cluster, yes, [one.urn for one in again])
