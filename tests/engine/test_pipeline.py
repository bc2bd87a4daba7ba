"""The pipelines of docs/ci, run as the files stand there, and the example of docs/pipeline.md.

Stand-ins: simulated hosts; `gh`, which is GitHub's API here; an HTTP server, which is GitLab's; and
for the runners, `Github` and `Gitlab` below, which do what those do with steps. `slurmstack` and
the embedded engine are real.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sysconfig
import threading
import time
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import asyncssh
import pytest
import yaml

from bench.simulated import address, compared
from remote.framing import BEGIN, END
from tests.engine.test_rollout import HARDWARE, NAMES, Hosts

PROJECT = Path(__file__).parents[2]
CI = PROJECT / "docs" / "ci"
CODE = (
    "__main__.py", "settings", "discovery", "components", "templates", "remote", "on_node",
    "engine", "operations", "lab", "docs", "Pulumi.yaml", "pyproject.toml", "requirements.lock",
)  # fmt: skip
PASSPHRASE, TOKEN = "passphrase-of-the-state-7Q", "token-of-the-forge-5Z"
Json = dict[str, Any]


class Machines(Hosts):
    """Three hosts; a job is on cn01, and one may have a file that is not as deployed."""

    drifted = ""

    async def _run(self, script: str) -> str:
        if "set -- compare" in script:
            told = compared(script)
            if f"node {self.drifted}\n" in script:
                wrong = "differs file /etc/slurm/slurm.conf content\n  -MessageTimeout=30"
                told = re.sub(r"^role slurmctld$", rf"\g<0>\n{wrong}", told, flags=re.M)
            return told
        if "squeue" in script:
            return f"{BEGIN}\njob|42|alice|RUNNING|cn01|main\n{END}\n"
        return await super()._run(script)


@dataclass
class Ran:
    """What a job did."""

    log: str
    codes: list[int]
    summary: str = ""
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def well(self) -> bool:
        return not any(self.codes)


class Site:
    """A repository of a stack, and the runner of its pipelines."""

    def __init__(self, folder: Path, hosts: Machines) -> None:
        self.folder, self.hosts = folder, hosts
        for name in ("repository", "state", "bin", "home"):
            (folder / name).mkdir()
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.private = self.key.export_private_key().decode()
        hosts.only = self.key.convert_to_public()
        #: Command lines that were seen while steps ran.
        self.command_lines: set[str] = set()
        self._checkouts = 0
        self.environment = {
            "PATH": f"{folder}/bin:/usr/bin:/bin",
            "HOME": f"{folder}/home",
            "LANG": "C.UTF-8",
            "PULUMI_HOME": f"{folder}/home/pulumi",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_ENGINE": "embedded",
        }
        #: What the forge gives to jobs that name them.
        self.secrets = {
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            # As it is pasted: forges cut the last line's end off.
            "SLURMSTACK_SSH_KEY": self.private.strip(),
        }
        self.backend = f"file://{folder}/state"
        self.settings: Json = {
            "cluster": {"name": "sim"},
            "ssh": {"dialErrorLimit": 0, "perDialTimeout": 2},
            "roles": {"controller": "ctl"},
            "partitions": {"main": {"Nodes": "ALL"}},
            "hosts": {
                name: {"address": address(number), "port": hosts.port, "hostKey": hosts.host_key}
                for number, name in enumerate(NAMES[:3])
            },
            "nodes": [{"hosts": "cn[01-02]", "hardware": HARDWARE}],
        }
        self._file = folder / "repository" / "Pulumi.prod.yaml"
        first = self.checkout()
        self.run_here(first, ".venv/bin/python -m engine.choose && "
                      ".venv/bin/pulumi stack init prod --non-interactive")  # fmt: skip
        shutil.copy(first / "Pulumi.prod.yaml", self._file)
        self.commit()

    def deploy(self) -> None:
        """The settings as they are, by a person."""
        words = ".venv/bin/pulumi up --yes --skip-preview --non-interactive --stack prod"
        folder = self.checkout()
        choose = ".venv/bin/python -m engine.choose"
        self.run_here(folder, f"{choose} && sh docs/ci/with-ssh-key.sh {words}")
        assert ("ctl", "slurmctld") in self.sent()

    def commit(self, **changes: Any) -> None:
        """Settings as a person edits them."""
        self.settings |= changes
        before = yaml.safe_load(self._file.read_text()) or {}
        config = {f"slurmstack:{key}": value for key, value in self.settings.items()}
        self._file.write_text(yaml.safe_dump({**before, "config": config}))

    def checkout(self) -> Path:
        """A fresh one on the runner, with the environment that `lab/venv.sh` made there before."""
        self._checkouts += 1
        to = self.folder / f"checkout-{self._checkouts}"
        to.mkdir()
        for name in CODE:
            take = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
            take(PROJECT / name, to / name)
        if self._file.exists():
            shutil.copy(self._file, to)
        venv.create(to / ".venv", symlinks=True)
        packages = sysconfig.get_path("purelib")
        (into,) = (to / ".venv" / "lib").glob("python*/site-packages")
        (into / "packages.pth").write_text(f"{packages}\n")
        (to / ".venv/bin/slurmstack").symlink_to("../../operations/slurmstack.sh")
        made_from = b"".join(
            (to / name).read_bytes()
            for name in ("requirements.lock", "pyproject.toml", "lab/venv.sh")
        )
        stamp = f"{hashlib.sha256(made_from).hexdigest()}-{to}\n"
        (to / ".venv" / "made-from").write_text(stamp)
        return to

    def run_here(self, folder: Path, script: str, **more: str) -> str:
        """What is done by a person beside the pipeline."""
        environment = self.environment | self.secrets | {"PULUMI_BACKEND_URL": self.backend} | more
        code, said = self.shell(folder, script, environment)
        assert code == 0, said
        return said

    def shell(self, folder: Path, script: str, environment: Mapping[str, str]) -> tuple[int, str]:
        """A step's text as both forges run it, and all that it printed."""
        with subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "/dev/stdin"],
            cwd=folder, env=dict(environment), text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as shell:  # fmt: skip
            watch = threading.Thread(target=self._watch, args=(shell,))
            watch.start()
            said, _ = shell.communicate(script, timeout=240)
        watch.join()
        return shell.returncode, said

    def _watch(self, process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            self.look()
            time.sleep(0.02)

    def look(self) -> None:
        """Note all command lines of this moment."""
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                self.command_lines.add(file.read_bytes().replace(b"\0", b" ").decode())
            except (OSError, UnicodeDecodeError):
                continue

    def searched(self, log: str) -> None:
        """No secret was in a log or a command line."""
        # The first line of the key is that of all keys; a short last one may be anywhere.
        body = [line for line in self.private.splitlines()[2:-1] if len(line) > 20]
        assert body
        assert self.command_lines
        for secret in (PASSPHRASE, TOKEN, *body):
            assert secret not in log
            assert not [line for line in self.command_lines if secret in line]

    def sent(self) -> set[tuple[str, str]]:
        """(node, role) of bundles that hosts got since this was last asked."""
        sent = {(one.node, one.role) for one in self.hosts.sent}
        self.hosts.sent.clear()
        return sent


def holds(condition: str, known: Mapping[str, str]) -> bool:
    """A condition of these files: comparisons, joined by `&&`. What is not known is empty."""

    def value(word: str) -> str:
        return word[1:-1] if word[0] in "'\"" else known.get(word.removeprefix("$"), "")

    for one in condition.split(" && "):
        left, sign, right = one.split(" ")
        assert sign in ("==", "!="), condition
        if (value(left) == value(right)) != (sign == "=="):
            return False
    return True


class Github:
    """Does what a runner of GitHub Actions does with the jobs of the file."""

    file = yaml.safe_load((CI / "github-actions.yml").read_text())
    #: Environments whose reviewers have to approve.
    protected = ("production",)

    def __init__(self, site: Site) -> None:
        self.site = site
        self.artefacts: dict[str, Path] = {}
        self.comment = site.folder / "comment"
        gh = site.folder / "bin" / "gh"
        # Stands for GitHub's API: the comment on a pull request.
        gh.write_text(
            "#!/bin/sh\n"
            f'[ "$GH_TOKEN" = {TOKEN} ] && [ "$GH_REPO" = site/cluster ] || exit 4\n'
            '[ "$*" = "pr comment 7 --edit-last --create-if-none --body-file plan.md" ] || exit 5\n'
            f"cp plan.md {self.comment}\n"
        )
        gh.chmod(0o755)

    def event(self, of: Mapping[str, str], approved: bool = False) -> dict[str, Ran]:
        """All jobs that run for it, each in a fresh checkout."""
        # YAML 1.1 reads `on` as a boolean.
        assert of["github.event_name"] in self.file[True]
        known = {
            **of,
            "github.repository": "site/cluster",
            "github.token": TOKEN,
            "vars.PULUMI_BACKEND_URL": self.site.backend,
            **{f"secrets.{name}": value for name, value in self.site.secrets.items()},
        }
        ran: dict[str, Ran] = {}
        for name, job in self.file["jobs"].items():
            needs = job.get("needs")
            if needs and not (needs in ran and ran[needs].well):
                continue
            for key, value in ran[needs].outputs.items() if needs else ():
                known[f"needs.{needs}.outputs.{key}"] = value
            waits = job["environment"] in self.protected and not approved
            if not waits and holds(job["if"], known):
                ran[name] = self._job(job, dict(known))
        return ran

    def _job(self, job: Json, known: dict[str, str]) -> Ran:
        site, folder = self.site, Path()
        files = {name: site.folder / name for name in ("output", "summary", "path")}
        for file in files.values():
            file.write_text("")
        ran = Ran("", [])
        for step in job["steps"]:
            action = step.get("uses", "").partition("@")[0]
            if action == "actions/checkout":
                folder = site.checkout()
            elif action == "actions/upload-artifact":
                self.artefacts[step["with"]["name"]] = folder / step["with"]["path"]
            elif action == "actions/download-artifact":
                shutil.copy(self.artefacts[step["with"]["name"]], folder)
            else:
                assert not action, action
                # An expression would be put into the text, where the shell reads it as its own.
                assert "${{" not in step["run"]
                assert self.file["defaults"]["run"]["shell"] == "bash"
                added = ":".join(reversed(files["path"].read_text().split()))
                environment = site.environment | {
                    name: _filled(str(value), known)
                    for name, value in (self.file["env"] | step.get("env", {})).items()
                }
                environment["PATH"] = f"{added}:{environment['PATH']}"
                environment |= {f"GITHUB_{name.upper()}": str(file)
                                for name, file in files.items() if name != "summary"}  # fmt: skip
                environment["GITHUB_STEP_SUMMARY"] = str(files["summary"])
                code, said = site.shell(folder, step["run"], environment)
                ran.log += said
                ran.codes.append(code)
                for line in files["output"].read_text().splitlines():
                    key, _, value = line.partition("=")
                    known[f"steps.{step.get('id')}.outputs.{key}"] = value
                if code:
                    break
        ran.summary = files["summary"].read_text()
        ran.outputs = {k: _filled(v, known) for k, v in job.get("outputs", {}).items()}
        return ran


def _filled(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ (\S+) \}\}", lambda found: known.get(found[1], ""), text)


class Gitlab:
    """Does what a shell runner of GitLab does with the jobs of the file."""

    file = yaml.safe_load((CI / "gitlab-ci.yml").read_text())

    def __init__(self, site: Site) -> None:
        self.site = site
        self.artefacts: dict[str, list[Path]] = {}
        #: Notes: the path that was posted to, the token, the text.
        self.notes: list[tuple[str, str, str]] = []
        owner = self

        class Api(BaseHTTPRequestHandler):
            """Stands for GitLab's API: a note on a merge request."""

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                token = self.headers["PRIVATE-TOKEN"] or ""
                # Who called is there still.
                owner.site.look()
                owner.notes.append((self.path, token, form["body"][0]))
                self.send_response(201 if token == TOKEN else 401)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Api)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def end(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def pipeline(self, variables: Mapping[str, str], play: bool = False) -> dict[str, Ran]:
        """All jobs that run in it, stage by stage; manual ones where somebody plays them."""
        known = {
            **self.site.secrets,
            "SLURMSTACK_NOTE_TOKEN": TOKEN,
            "PULUMI_BACKEND_URL": self.site.backend,
            "CI_DEFAULT_BRANCH": "main",
            "CI_PROJECT_ID": "3",
            "CI_API_V4_URL": f"http://127.0.0.1:{self._server.server_port}/api/v4",
            **self.file["variables"],
            **variables,
        }
        ran: dict[str, Ran] = {}
        jobs = {name: job for name, job in self.file.items() if "script" in job}
        for name, job in sorted(
            jobs.items(), key=lambda it: self.file["stages"].index(it[1]["stage"])
        ):
            rule = next((rule for rule in job["rules"] if holds(rule["if"], known)), None)
            if rule is None or not all(one.well for one in ran.values()):
                continue
            if rule.get("when") == "manual" and not play:
                continue
            folder = self.site.checkout()
            for needed in job.get("needs", ()):
                for file in self.artefacts.get(needed, ()):
                    shutil.copy(file, folder)
            script = "\n".join([*self.file["default"]["before_script"], *job["script"]])
            code, said = self.site.shell(folder, script, self.site.environment | known)
            ran[name] = Ran(said, [code])
            paths = job.get("artifacts", {}).get("paths", ())
            self.artefacts[name] = [folder / path for path in paths]
        return ran


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    hosts = Machines(tmp_path_factory.mktemp("hosts"))
    yield hosts
    hosts.end()


@pytest.fixture
def site(tmp_path: Path, machines: Machines) -> Iterator[Site]:
    machines.drifted = ""
    machines.sent.clear()
    yield Site(tmp_path, machines)
    machines.only = None


@pytest.fixture
def deployed(site: Site) -> Site:
    site.deploy()
    return site


#: The change that is proposed, what is told of it, and whom it reaches.
CHANGE = {"slurm": {"MessageTimeout": 60}}
ROW = "| cn\\[01-02\\],ctl | slurm.conf MessageTimeout"
JOB = "42 alice running main"


def test_github_actions(deployed: Site) -> None:
    site = deployed
    forge = Github(site)
    same = {"github.event.pull_request.head.repo.full_name": "site/cluster"}
    pull = {"github.event_name": "pull_request", "github.event.pull_request.number": "7"}
    fork = {"github.event.pull_request.head.repo.full_name": "else/cluster"}
    assert forge.event(pull | fork) == {}
    quiet = forge.event(pull | same)
    assert quiet["plan"].well, quiet["plan"].log
    assert forge.comment.read_text() == "### stack prod: no change\n"
    site.commit(**CHANGE)
    proposed = forge.event(pull | same)
    assert list(proposed) == ["plan"]
    assert proposed["plan"].well, proposed["plan"].log
    assert ROW in forge.comment.read_text()
    assert JOB in forge.comment.read_text()
    assert site.sent() == set(), "a plan sends nothing"

    push = {"github.event_name": "push"}
    merged = forge.event(push)
    assert list(merged) == ["planned"], "apply waits for its reviewers"
    assert merged["planned"].well, merged["planned"].log
    assert ROW in merged["planned"].summary
    assert site.sent() == set()
    approved = forge.event(push, approved=True)
    assert approved["apply"].well, approved["apply"].log
    assert ("ctl", "slurmctld") in site.sent()
    assert "slurmctld" in approved["apply"].log
    # What was approved once is not done a second time, nor is what nobody planned.
    again = forge.event(push, approved=True)
    assert list(again) == ["planned"]
    assert again["planned"].outputs == {"changes": "false"}

    night = {"github.event_name": "schedule"}
    assert forge.event(night)["drift"].well
    site.hosts.drifted = "ctl"
    drifted = forge.event(night)
    assert drifted["drift"].codes[-1] == 2, drifted["drift"].log
    for told in (drifted["drift"].log, drifted["drift"].summary):
        assert "/etc/slurm/slurm.conf" in told
    every = (quiet, proposed, merged, approved, again, drifted)
    site.searched("".join(ran.log + ran.summary for jobs in every for ran in jobs.values()))


def test_gitlab_ci(deployed: Site) -> None:
    site = deployed
    forge = Gitlab(site)
    try:
        request = {"CI_PIPELINE_SOURCE": "merge_request_event", "CI_MERGE_REQUEST_IID": "7"}
        site.commit(**CHANGE)
        proposed = forge.pipeline(request)
        assert list(proposed) == ["plan"]
        assert proposed["plan"].well, proposed["plan"].log
        ((path, token, text),) = forge.notes
        assert path == "/api/v4/projects/3/merge_requests/7/notes"
        assert token == TOKEN
        assert ROW in text
        assert JOB in text
        assert site.sent() == set(), "a plan sends nothing"

        push = {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "main"}
        assert forge.pipeline(push | {"CI_COMMIT_BRANCH": "another"}) == {}
        merged = forge.pipeline(push)
        assert list(merged) == ["planned"], "apply waits for a person"
        assert merged["planned"].well, merged["planned"].log
        assert site.sent() == set()
        played = forge.pipeline(push, play=True)
        assert played["apply"].well, played["apply"].log
        assert ("ctl", "slurmctld") in site.sent()

        night = {"CI_PIPELINE_SOURCE": "schedule", "CI_COMMIT_BRANCH": "main"}
        quiet = forge.pipeline(night)
        assert list(quiet) == ["drift"]
        assert quiet["drift"].well, quiet["drift"].log
        site.hosts.drifted = "ctl"
        drifted = forge.pipeline(night)
        assert drifted["drift"].codes == [2], drifted["drift"].log
        assert "/etc/slurm/slurm.conf" in drifted["drift"].log
        every = (proposed, merged, played, quiet, drifted)
        site.searched("".join(ran.log for jobs in every for ran in jobs.values()))
    finally:
        forge.end()


@pytest.mark.parametrize("forge", [Github, Gitlab])
def test_a_plan_that_cannot_be_made_fails_and_says_nothing_of_a_change(
    site: Site, forge: type[Github] | type[Gitlab]
) -> None:
    site.commit(slurm={"MessageTimeot": 60})
    if forge is Github:
        jobs = Github(site).event({"github.event_name": "push"}, approved=True)
    else:
        gitlab = Gitlab(site)
        try:
            push = {"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_BRANCH": "main"}
            jobs = gitlab.pipeline(push, play=True)
        finally:
            gitlab.end()
    assert list(jobs) == ["planned"]
    assert jobs["planned"].codes[-1] == 1
    assert "MessageTimeout" in jobs["planned"].log
    assert site.sent() == set()


def test_the_key_is_held_by_an_agent_and_nothing_else(site: Site) -> None:
    """The command finds it in an agent, not in its environment; without one it is not begun."""
    folder = site.checkout()
    said = site.run_here(folder, "sh docs/ci/with-ssh-key.sh sh -c 'ssh-add -l; env; exit 0'")
    assert site.key.get_fingerprint() in said
    assert "SLURMSTACK_SSH_KEY" not in said
    agents = re.findall(r"^SSH_AGENT_PID=(\d+)", said, re.M)
    assert agents
    for agent in agents:
        ends = time.monotonic() + 30
        while Path(f"/proc/{agent}").exists():
            assert time.monotonic() < ends, "the agent ends with the command"
            time.sleep(0.05)
    code, said = site.shell(folder, "sh docs/ci/with-ssh-key.sh true", site.environment)
    assert (code, said.startswith("with-ssh-key: SLURMSTACK_SSH_KEY is empty")) == (1, True)
    code, _ = site.shell(folder, "sh docs/ci/with-ssh-key.sh sh -c 'exit 2'",
                         site.environment | site.secrets)  # fmt: skip
    assert code == 2


def test_the_example_in_python(deployed: Site) -> None:
    """The block of docs/pipeline.md, as it stands there."""
    site = deployed
    page = (PROJECT / "docs" / "pipeline.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    assert len(example.splitlines()) <= 30
    site.commit(**CHANGE)
    folder = site.checkout()
    (folder / "roll_out.py").write_text(example)
    prepare = "sh lab/venv.sh && .venv/bin/python -m engine.choose && "
    run = f"{prepare}sh docs/ci/with-ssh-key.sh .venv/bin/python roll_out.py prod"
    said = site.run_here(folder, run)
    assert "MessageTimeout" in said
    assert ("ctl", "slurmctld") in site.sent()
    said = site.run_here(folder, run)
    assert "no change" in said
    assert site.sent() == set()
    environment = site.environment | site.secrets | {"PULUMI_BACKEND_URL": site.backend}
    site.hosts.drifted = "ctl"
    code, said = site.shell(folder, run, environment)
    assert code == 2, said
    assert "ctl: file /etc/slurm/slurm.conf" in said
    site.commit(slurm={"MessageTimeot": 60})
    shutil.copy(site.folder / "repository" / "Pulumi.prod.yaml", folder)
    code, said = site.shell(folder, run, environment)
    assert (code, "Traceback" in said) == (1, False), said
    assert "MessageTimeout" in said
