"""Command lines run one after the other on one project, and what came of each.

The same scenarios are run by the real Pulumi (recorded in ``recorded/`` by ``python -m
tests.engine.front.scenarios``, and run again by the tests where it is on PATH) and by ours.
"""

# Programs and commands are written as they are typed.
# ruff: noqa: E501

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

RECORDED = Path(__file__).parent / "recorded"
REPOSITORY = Path(__file__).parents[3]

PROJECT = """\
name: small
runtime:
  name: python
  options:
    virtualenv: VIRTUALENV
description: A small program
"""
PROGRAM = """\
import pulumi

class Thing(pulumi.ComponentResource):
    def __init__(self, name, opts=None):
        super().__init__("small:index:Thing", name, None, opts)
        self.register_outputs({"x": 1})

Thing("two", pulumi.ResourceOptions(parent=Thing("one")))
pulumi.export("plain", "hello")
pulumi.export("number", 1.5)
pulumi.export("hidden", pulumi.Output.secret("s3cret"))
pulumi.export("tree", {"a": [1, 2], "b": "x\\ny\\nz\\n"})
"""

VARYING = {
    *("created", "modified", "stackTrace", "sourcePosition", "duration", "durationSeconds"),
    *("sequence", "timestamp"),
}


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@dataclass
class Sandbox:
    """A project folder, a state folder and a Pulumi home of their own."""

    root: Path
    pulumi: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("project", "state", "home", "bin"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        if not (self.project / "Pulumi.yaml").exists():
            settings = PROJECT.replace("VIRTUALENV", sys.prefix)
            (self.project / "Pulumi.yaml").write_text(settings)
            (self.project / "__main__.py").write_text(PROGRAM)
        self.env = {
            "PATH": f"{self.pulumi.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self.root),
            "PULUMI_HOME": str(self.root / "home"),
            "PULUMI_BACKEND_URL": f"file://{self.root / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": "correct horse",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_IGNORE_AMBIENT_PLUGINS": "true",
            "LC_ALL": "C.UTF-8",
        }

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def state(self) -> Path:
        return self.root / "state" / ".pulumi"

    def run(self, *argv: str, stdin: str = "", **env: str) -> Outcome:
        done = subprocess.run(
            [str(self.pulumi), *argv], cwd=self.project, env=self.env | env, input=stdin,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return Outcome(done.returncode, done.stdout, done.stderr)


def real_pulumi() -> Path | None:
    """The real command on PATH, if there is one (ours says what it is in `about`)."""
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        found = Path(folder) / "pulumi"
        if found.is_file() and found.stat().st_size > 1_000_000:
            return found.resolve()
    return None


def embedded_pulumi(folder: Path) -> Path:
    """A launcher of our engine in ``folder/bin``."""
    launcher = folder / "bin" / "pulumi"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    launcher.write_text(
        f'#!/bin/sh\nPYTHONPATH="{REPOSITORY}" exec "{sys.executable}" -m engine "$@"\n'
    )
    launcher.chmod(0o755)
    return launcher


def normalise(text: str, sandbox: Sandbox) -> str:
    """Take out what differs from run to run."""
    text = text.replace(str(sandbox.root), "ROOT").replace(os.uname().nodename, "HOST")
    text = re.sub(r"v1:[\w+/=]+:v1:[\w+/=]+:[\w+/=]+", "SALT", text)
    text = re.sub(r"v1:[\w+/=]+:[\w+/=]+", "CIPHERTEXT", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 UTC)", "TIME", text)
    text = re.sub(r"took \d+s", "TOOK", text)
    # Each engine notes what it knows of its surroundings.
    text = re.sub(
        r'^ +"?(pulumi|runtime|stack|updatePlan|exec)\b[\w.]*"?: .*\n', "", text, flags=re.M
    )
    text = re.sub(r"(now|\d+ (second|minute)s? ago)", "AGO", text)
    text = re.sub(r" +\n", "\n", text)
    text = re.sub(r"AGO +(?=\S)", "AGO  ", text)
    text = re.sub(r"LAST UPDATE +", "LAST UPDATE  ", text)
    # Pulumi prints its whole help before some errors; ours does not.
    return "" if "\nUsage:\n" in text else text


VERBS = r"""
version
whoami
whoami --json
--non-interactive whoami
stack ls
stack ls --json
stack
stack select
stack init dev
stack init dev
stack init 'bad name'
stack select nope
stack select --stack nope
stack select dev
stack init organization/small/two
stack ls
stack ls --json
stack select dev
stack
stack --show-name
stack output
stack output --json
stack output foo
stack history --json
stack rm two
stack ls
stack select dev
stack rm --yes nope
stack
preview --stack nope
stack init three
stack init four --no-select
stack rm -y four --preserve-config
cancel --yes three
stack export --stack three
up --stack dev
destroy --stack dev
config refresh --force --stack dev
stack import --stack dev
stack select dev
stack rm --yes dev
config
stack output
stack export
stack history --json
stack import
stack rm -y
cancel -y
config set a b
config refresh --force
preview
up -yf
refresh -yf
destroy -yf
--stack two stack --show-name
-s two stack output
-s=two stack output
--json --stack=two stack output
--yes preview
--bogus up preview
--stack two
--stack two config get nope
"""
CONFIG = r"""
stack init dev
config
config --json
config set a 1
config set b true
config set small:c hello
config set --secret pw hunter2
config set other:thing 2
config set --path 'n.x[0]' v
config set --path 'n.x[1]' 22
config set --path n.y.z true
config set --path --secret n.s sss
config set --path n.q 1.5
config set --path n.o 0123
config set --path 'n.x[5]' 1
config set --path n.q.r 1
config set --path 'n["a.b"].c' '<&>'
config set lines 'l1\nl2\n'
config set empty ''
config set neg -- -1
config set bad:key:x 1
config set --secret --plaintext k v
config set
config set k v --stack nope
config
config --json
config --show-secrets
config --show-secrets --json
config get a
config get pw
config get pw --json
config get n
config get n --json
config get --path 'n.x[0]'
config get --path n.s --json
config get zz
config get --path n.zz
config rm zz
config rm --path n.y
config rm --path 'n.x[0]'
config rm a
config set-all --plaintext x1=1 --secret x2=two --plaintext a.b=dotted
config set-all --path --plaintext p.q=1
config set-all --json '{"small:j1":{"value":"1","secret":false}}'
config set-all --json '{"small:j2":{"value":"sec","secret":true}}'
config set-all --json '{"small:j3":{"value":"{\"a\":[1,2]}","secret":false,"objectValue":{"a":[1,2]}}}'
config set-all --json '{"small:j4":{"secret":true}}'
config rm-all x1 x2
config set token foo
config set token abcd1234EFGH5678ijkl9012MNOP3456qrst
config
config --show-secrets --json
config --stack dev get b
--non-interactive config get b --json --stack organization/small/dev
"""
UNKNOWN = r"""
stack init dev
up --bogus
up -x
bogus
stack bogus
config bogus --bogus
--bogus up
preview --json --bogus=1
preview --yes
refresh --continue-on-error
destroy --yes --expect-no-changes
up --yes --preview-only
up --parallel=x
up --parallel
up --debug=maybe
config get
config get a b
config set
config rm-all
stack rm a b c
whoami extra
"""
# Of a command with "!" before it only the exit code is compared.
DEPLOYED = r"""
stack init dev
config set a 1
config set --secret s x
! up -yf --message first
stack
stack --show-urns
stack output
stack output --json
stack output plain
stack output number --json
stack output hidden
stack output hidden --show-secrets
stack output tree
stack output tree --json
stack output foo
stack history --json --show-secrets
config set a 2
config rm s
config refresh --force
config
config set a 3
config refresh --force
config --json --show-secrets
stack rm --yes
preview --json --suppress-outputs
! destroy -yf
stack rm --yes
stack ls
"""
PATHS = r"""
stack init dev
config set --path 'l[*]' x
config set --path '.a' x
config set --path 'a.[0]' x
config set --path 'a.' x
config set --path 'q["a\\b"]' x
config set --path 'q["a\"b"]' x
config set --path 'r["x"' x
config set --path 'r["x' x
config set --path 'r[x]' x
config set --path 'r[1' x
config set --path 'r[-1]' x
config set --path '[0]' x
config set --path '' x
config set --path 'a]b' x
config set --path 'n[0]b' x
config set --path 'n.q' x
config set --path 'n[0].b.c' x
config set --path 't..u' x
config set --path 't[0]' x
config set --path 'config:v.w' x
config set --path 'other:config:v.w' x
config set --path 'bad:a:b.c' x
config set-all --path --plaintext 't[0]=x'
config set-all --path --plaintext '.t=x'
config get --path '.t'
config get --path 't[0]'
config rm --path 't[x'
config rm --path 'n[0]'
config --json
"""
SCENARIOS = {"verbs": VERBS, "config": CONFIG, "unknown": UNKNOWN}
SCENARIOS |= {"deployed": DEPLOYED, "paths": PATHS}


def commands(name: str) -> list[list[str]]:
    return [
        [word.replace("\\n", "\n") for word in shlex.split(line)]
        for line in SCENARIOS[name].strip().splitlines()
    ]


def play(name: str, pulumi: Path, root: Path) -> list[dict[str, object]]:
    """Run a scenario; each command with its exit code and what it printed."""
    sandbox = Sandbox(root, pulumi)
    found: list[dict[str, object]] = []
    for argv in commands(name):
        if argv[0] == "!":
            found.append({"argv": argv, "code": sandbox.run(*argv[1:]).code})
            continue
        outcome = sandbox.run(*argv)
        out = normalise(outcome.out, sandbox).splitlines()
        if "--json" in argv and argv[0] in ("up", "preview", "refresh", "destroy"):
            out = [json.dumps(document) for document in _documents(outcome.out)]
        found.append({
            "argv": argv,
            "code": outcome.code,
            "out": out,
            "err": normalise(outcome.err, sandbox).splitlines(),
        })  # fmt: skip
    for path in sorted(sandbox.project.glob("Pulumi.*.yaml")):
        found.append({"file": path.name,
                      "text": normalise(path.read_text(), sandbox).splitlines()})  # fmt: skip
    return found


def _documents(text: str) -> list[object]:
    """What an operation says with --json, without what differs from run to run or is not kept by
    the embedded engine, and without the SDK's debug messages. Equal events may come in any order,
    as the program's calls do."""

    def kept(value: object) -> object:
        if isinstance(value, dict):
            return {k: kept(v) for k, v in sorted(value.items()) if k not in VARYING}
        return [kept(v) for v in value] if isinstance(value, list) else value

    try:
        return [kept(json.loads(text))]
    except ValueError:
        events = [json.loads(line) for line in text.splitlines()]
    found = [kept(e) for e in events if e.get("diagnosticEvent", {}).get("severity") != "debug"]
    return sorted(found, key=json.dumps)


def record() -> None:
    pulumi = real_pulumi()
    if pulumi is None:
        raise SystemExit("no real pulumi on PATH")
    import tempfile

    RECORDED.mkdir(exist_ok=True)
    for name in SCENARIOS:
        root = Path(tempfile.mkdtemp())
        try:
            text = json.dumps(play(name, pulumi, root), indent=1, ensure_ascii=False)
            (RECORDED / f"{name}.json").write_text(text + "\n")
        finally:
            shutil.rmtree(root)


if __name__ == "__main__":
    record()
