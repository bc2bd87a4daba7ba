"""Small programs whose events and texts are recorded from the real Pulumi.

``python -m tests.engine.front.displays`` records anew; it needs the real `pulumi` on PATH with
its Python host and `pulumi-resource-command` beside it.
"""

# Programs and commands are written as they are typed.
# ruff: noqa: E501

from __future__ import annotations

import gzip
import json
import re
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.engine.front.scenarios import RECORDED, REPOSITORY, Sandbox, real_pulumi

COMMON = """\
import pulumi
from pulumi_command import local
O = pulumi.ResourceOptions
"""
FIRST = (
    COMMON
    + """\
a = local.Command("a", create="cat", update="cat", stdin="ClusterName=x\\nA=1\\nB=2\\n",
                  environment={"K": "v", "L": "w"}, add_previous_output_in_env=False)
b = local.Command("b", create="cat", stdin=pulumi.Output.secret("hush"), triggers=[1, "x"],
                  logging=local.Logging.NONE, opts=O(depends_on=[a], additional_secret_outputs=["stdout"]))
c = local.Command("c", create="true", delete="true", opts=O(depends_on=[b]))
local.Command("y", opts=O(depends_on=[c]), create="true", update="true", stdin="partitions:\\n- name: main\\n  nodes: [cn01]\\ndebug: false\\n")
pulumi.export("a", a.stdout)
pulumi.export("b", b.stdout)
pulumi.export("tree", {"list": [1, 2, 3], "text": "1\\n2\\n3\\n4\\n5\\n", "deep": {"x": True, "y": 2.5}})
pulumi.export("gone", "yes")
pulumi.export("json", '{"a": 1, "b": [1]}')
pulumi.export("yaml", "- one\\n- two: 2\\n  more: [1, 2]\\n")
pulumi.export("not-yaml", "half: [1,\\nbroken\\n")
"""
)
SECOND = (
    COMMON
    + """\
a = local.Command("a", create="cat", update="cat", stdin="ClusterName=x\\nA=9\\nB=2\\nC=3\\n",
                  environment={"K": "w", "M": "n"}, add_previous_output_in_env=False)
b = local.Command("b", create="cat", stdin=pulumi.Output.secret("hush2"), triggers=[2, "x"],
                  logging=local.Logging.NONE, opts=O(depends_on=[a], additional_secret_outputs=["stdout"]))
d = local.Command("d", create="echo hi", dir="/tmp", opts=O(depends_on=[b]))
local.Command("y", opts=O(depends_on=[d]), create="true", update="true", stdin="partitions:\\n- name: main\\n  nodes: [cn01, cn02]\\n- name: extra\\ndebug: false\\n")
pulumi.log.warn("watch out", b)
pulumi.export("a", a.stdout)
pulumi.export("b", b.stdout)
pulumi.export("tree", {"list": [1, 4], "text": "1\\n2\\n3\\n4\\n5\\nsix\\n", "deep": {"x": True, "y": 3}})
pulumi.export("more", "<&> \\t \\u00e9")
pulumi.export("json", '{"a": 2, "b": [1]}')
pulumi.export("yaml", "- one\\n- two: 3\\n  more: [1, 2]\\n- null\\n")
pulumi.export("not-yaml", "half: [2,\\nbroken\\n")
"""
)
FAILING = (
    COMMON
    + """\
local.Command("e", create="echo boom >&2; exit 3")
"""
)
BROKEN = (
    COMMON
    + """\
pulumi.log.info("a note")
raise Exception("program broke")
"""
)
COMPONENT = (
    COMMON
    + """\
class Thing(pulumi.ComponentResource):
    def __init__(self, name, opts=None):
        super().__init__("small:index:Thing", name, None, opts)
        self.c = local.Command("c", create="echo in; echo side >&2", opts=O(parent=self, protect=True))
        self.register_outputs({})
Thing("one")
"""
)
ODD = (
    COMMON
    + """\
class Thing(pulumi.ComponentResource):
    def __init__(self, name, child, opts=None):
        super().__init__("small:mod/thing:Thing", name, {"x": 1}, opts)
        self.register_outputs({"child": child})
a = local.Command("a", create="echo 1", delete="true", opts=O(retain_on_delete=True))
b = local.Command("na::me", create="echo 1", triggers=["1"], opts=O(retain_on_delete=True))
thing = Thing("thing", a)
other = Thing("odd::thing", b, O(parent=thing))
local.Command("kid::of$it", create="echo 1", opts=O(parent=other))
pulumi.export("reference", a)
pulumi.export("references", [b, thing])
pulumi.export("map", {"known": 1, "unknown": a.stdout, "list": [1, a.stdout]})
pulumi.export("numbers", [1234567.5, 0.00001234, 123456789012, 1e20, 12345678901234567168, 1.5e22, -2.25])
"""
)
ODDER = (
    ODD.replace("echo 1", "echo 2")
    .replace('["1"]', '["2"]')
    .replace('"known": 1', '"new": [], "known": 2')
    .replace("-2.25", "-2.5")
)
UNPROTECTED = COMPONENT.replace(", protect=True", "")

# Name, program, command line; the state goes from one to the next.
STEPS: list[tuple[str, str, list[str]]] = [
    ("create-preview", FIRST, ["preview"]),
    ("create-preview-diff", FIRST, ["preview", "--diff"]),
    ("create-up", FIRST, ["up", "-yf"]),
    ("same-preview", FIRST, ["preview"]),
    ("same-up-diff", FIRST, ["up", "-yf", "--diff"]),
    ("change-preview", SECOND, ["preview"]),
    ("change-preview-diff", SECOND, ["preview", "--diff"]),
    ("change-up", SECOND, ["up", "-yf"]),
    ("back-up-diff", FIRST, ["up", "-yf", "--diff"]),
    ("failing-up", FAILING, ["up", "-yf"]),
    ("broken-preview", BROKEN, ["preview"]),
    ("refresh", FIRST, ["refresh", "-yf"]),
    ("refresh-diff", FIRST, ["refresh", "-yf", "--diff"]),
    ("component-up", COMPONENT, ["up", "-yf"]),
    ("unprotect-preview-diff", UNPROTECTED, ["preview", "--diff"]),
    ("unprotect-up", UNPROTECTED, ["up", "-yf", "--suppress-outputs"]),
    ("destroy-preview-diff", UNPROTECTED, ["destroy", "--preview-only", "--diff"]),
    ("destroy", UNPROTECTED, ["destroy", "-yf"]),
    ("odd-preview-diff", ODD, ["preview", "--diff"]),
    ("odd-up", ODD, ["up", "-yf"]),
    ("odder-preview", ODDER, ["preview"]),
    ("odder-preview-diff", ODDER, ["preview", "--diff"]),
    ("odder-up", ODDER, ["up", "-yf"]),
    ("back-to-odd-diff", ODD, ["up", "-yf", "--diff"]),
    ("odd-replace", ODD, ["up", "-yf", "--replace", "**::na::me", "--refresh"]),
    ("odd-destroy-diff", ODD, ["destroy", "--preview-only", "--diff"]),
    ("odd-destroy", ODD, ["destroy", "-yf"]),
    ("failing-create", FAILING, ["up", "-yf"]),
]
FILE = RECORDED / "displays.json.gz"
PREVIEW = RECORDED / "preview.json"


def normalise(text: str) -> list[str]:
    """Durations, and dots that show that time passes, differ from run to run."""
    text = re.sub(r"\(\d+(\.\d+)?s\)", "(TIME)", text)
    text = re.sub(r"Duration: \w+", "Duration: TIME", text)
    text = re.sub(r"^@ .*\n", "", text, flags=re.MULTILINE)
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def with_plugin(sandbox: Sandbox) -> Sandbox:
    """The real command's providers, installed rather than found on PATH: it says nothing of it."""
    for package in ("command", "random"):
        program = sandbox.pulumi.parent / f"pulumi-resource-{package}"
        if program.exists():
            name = f"resource-{package}-v{version(f'pulumi_{package}')}"
            plugin = sandbox.root / "home" / "plugins" / name
            plugin.mkdir(parents=True)
            (plugin / program.name).symlink_to(program.resolve())
    return sandbox


def preview_document(sandbox: Sandbox) -> Any:
    """What `preview --json` says of the second program after the first, without what differs from
    run to run, and the stack traces, which the embedded engine does not keep."""
    assert sandbox.run("stack", "init", "dev").code == 0
    (sandbox.project / "__main__.py").write_text(FIRST)
    assert sandbox.run("up", "-yf").code == 0
    (sandbox.project / "__main__.py").write_text(SECOND)
    text = sandbox.run("preview", "--json").out
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", text)
    text = re.sub(r'"id": "(\w)[0-9a-f]{8}"', r'"id": "\1"', text)

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            left_out = ("created", "modified", "stackTrace", "sourcePosition", "duration")
            return {k: kept(v) for k, v in value.items() if k not in left_out}
        return [kept(v) for v in value] if isinstance(value, list) else value

    document = kept(json.loads(text))
    for step in document["steps"]:
        step["diffReasons"] = sorted(step.get("diffReasons", []))  # in no order with Pulumi
    return document


def record() -> None:
    pulumi = real_pulumi()
    assert pulumi is not None, "no real pulumi on PATH"
    root = Path(tempfile.mkdtemp())
    document = preview_document(with_plugin(Sandbox(root / "preview", pulumi)))
    PREVIEW.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    sandbox = with_plugin(Sandbox(root, pulumi))
    assert sandbox.run("stack", "init", "dev").code == 0
    found: list[dict[str, Any]] = []
    for name, program, argv in STEPS:
        (sandbox.project / "__main__.py").write_text(program)
        log = root / "events.json"
        done = sandbox.run(*argv, "--event-log", str(log), PULUMI_DEBUG_COMMANDS="true")
        assert bool(done.code) == ("fail" in name or "broken" in name), done.out + done.err
        events = [json.loads(line) for line in log.read_text().splitlines()]
        events = [e for e in events if (e.get("diagnosticEvent") or {}).get("severity") != "debug"]
        for event in events:
            event.pop("timestamp", None)
        places = {str(root): "ROOT", str(pulumi.parent): "BIN", sys.prefix: "VENV",
                  sys.base_prefix: "PYTHON", str(REPOSITORY): "REPOSITORY"}  # fmt: skip

        def anonymous(text: str, places: dict[str, str] = places) -> str:
            for place, word in places.items():
                text = text.replace(place, word)
            return text

        clean = json.loads(anonymous(json.dumps(events)))
        found.append({"name": name, "argv": argv, "code": done.code, "events": clean,
                      "out": normalise(anonymous(done.out)),
                      "err": normalise(anonymous(done.err))})  # fmt: skip
    shutil.rmtree(root)
    with gzip.GzipFile(FILE, "wb", mtime=0) as file:
        file.write(json.dumps(found, ensure_ascii=False).encode())


def recorded() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(gzip.decompress(FILE.read_bytes()))
    return found


if __name__ == "__main__":
    record()
