"""Displays fed with events of the real engine against the text that it printed for them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.display import Style
from engine.display.diff import DiffDisplay
from engine.display.events import EventLog, Stamp
from engine.display.progress import ProgressDisplay
from engine.display.values import Printer, difference, quote
from engine.state import Secret, blind, to_disk
from tests.engine.front.displays import (
    PREVIEW,
    normalise,
    preview_document,
    recorded,
    with_plugin,
)
from tests.engine.front.scenarios import Sandbox

FRAME = re.compile(r"^(Previewing|Updating|Refreshing|Destroying) .*:$|^The resources|^If you want")


def replayed(case: dict[str, Any], **options: Any) -> DiffDisplay | ProgressDisplay:
    argv = case["argv"]
    style = Style(
        outputs="--suppress-outputs" not in argv,
        preview=argv[0] == "preview" or "--preview-only" in argv,
        truncate=argv[0] in ("up", "preview"),
        **options,
    )
    display: DiffDisplay | ProgressDisplay = DiffDisplay(style)
    if "--diff" not in argv:
        display = ProgressDisplay(style, "small", "dev")
    for event in case["events"]:
        display.show(event)
    display.close()
    return display


def in_order(lines: list[str]) -> list[str]:
    """Pulumi has the resources under "Diagnostics:" in the order of a Go map, which is none."""
    if "Diagnostics:" not in lines:
        return lines
    start = lines.index("Diagnostics:") + 1
    end = next((i for i in range(start, len(lines)) if lines[i][:1] != " "), len(lines))
    blocks: list[list[str]] = []
    for line in lines[start:end]:
        if re.match(r"  \S", line):
            blocks.append([])
        blocks[-1].append(line)
    return [*lines[:start], *(line for block in sorted(blocks) for line in block), *lines[end:]]


@pytest.mark.parametrize("case", recorded(), ids=lambda case: case["name"])
def test_same_text(case: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    replayed(case)
    printed = capsys.readouterr()
    expected = [line for line in case["out"] if not FRAME.match(line)]
    assert in_order(normalise(printed.out)) == in_order(expected)
    assert normalise(printed.err) == case["err"]


SECRET_STEP = {
    "op": "update",
    "urn": "urn:pulumi:dev::small::a:b:C::n",
    "type": "a:b:C",
    "logical": True,
    "old": {
        "urn": "urn:pulumi:dev::small::a:b:C::n",
        "custom": True,
        "inputs": to_disk({"k": Secret("hush-1"), "l": ["x"]}, None),
    },
    "new": {
        "urn": "urn:pulumi:dev::small::a:b:C::n",
        "custom": True,
        "inputs": to_disk({"k": Secret("hush-2"), "l": [Secret("hush-3")]}, None),
    },
    "detailedDiff": None,
}


def test_secrets_are_compared_but_not_shown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    events: list[dict[str, Any]] = [
        {"preludeEvent": {"config": {}}},
        {"resourcePreEvent": {"metadata": SECRET_STEP}},
        {"summaryEvent": {"resourceChanges": {"update": 1}, "isPreview": True}},
    ]
    stamp, log = Stamp(), EventLog(str(tmp_path / "log"))
    displays: list[Any] = [
        DiffDisplay(Style()),
        ProgressDisplay(Style(preview=True), "small", "dev"),
    ]
    for event in events:
        log.write(stamp(event))
        for display in displays:
            display.show(event)
    for display in displays:
        display.close()
    log.close()
    text = capsys.readouterr().out
    assert "~ k: [secret] => [secret]" in text
    assert "[diff: ~k,l]" in text
    written = (tmp_path / "log").read_text()
    assert json.loads(written.splitlines()[1])["sequence"] == 1
    assert "hush" not in text + written
    assert "hush" not in json.dumps(blind(events))
    DiffDisplay(Style(show_secrets=True)).show(events[1])
    assert '"hush-1" => "hush-2"' in capsys.readouterr().out


def test_within_a_secret_everything_is_secret(capsys: pytest.CaptureFixture[str]) -> None:
    def state(text: str) -> dict[str, Any]:
        properties = to_disk({"k": Secret({"deep": [text]})}, None)
        return {"urn": SECRET_STEP["urn"], "inputs": properties, "outputs": properties}

    detail = {"k.deep[0]": {"diffKind": "update", "inputDiff": False}}
    step = SECRET_STEP | {"old": state("hush-1"), "new": state("hush-2"), "detailedDiff": detail}
    style = Style(preview=True)
    for display in (DiffDisplay(style), ProgressDisplay(style, "small", "dev")):
        display.show({"resourcePreEvent": {"metadata": step}})
        display.close()
    text = capsys.readouterr().out
    assert "hush" not in text
    assert "~ [0]: [secret] => [secret]" in text


def test_preview_json(ours: Sandbox) -> None:
    found = preview_document(ours)
    assert found == json.loads(PREVIEW.read_text())
    assert "hush" not in json.dumps(found)


def test_recorded_preview_json_is_what_pulumi_says(real: Path, tmp_path: Path) -> None:
    document = preview_document(with_plugin(Sandbox(tmp_path, real)))
    assert document == json.loads(PREVIEW.read_text())


def test_long_texts() -> None:
    old = "\n".join(f"line {n}" for n in range(40)) + "\n"
    new = old.replace("line 20\n", "line twenty\n")
    printer = Printer(Style(), 1, "update", True)
    change = difference({"text": old}, {"text": new})
    assert change is not None
    printer.object_diff(change)
    assert printer.text().splitlines() == [
        "  ~ text: ",
        "        ...",
        "        line 18",
        "        line 19",
        "      - line 20",
        "      + line twenty",
        "        line 21",
        "        line 22",
        "        ...",
    ]


def test_quote() -> None:
    assert quote('a"\x00\x1f\x7fé\n') == '"a\\"\\x00\\x1f\\x7fé\\n"'
