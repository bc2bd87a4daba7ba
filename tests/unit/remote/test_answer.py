import json

import pytest

from remote.answer import AnswerError, parse_answer
from remote.framing import BEGIN, END, within_frame

SHA = "0123456789abcdef" * 4


FRAMED = f"""
slurmstack-answer 1
time 2026-01-31T12:00:00Z
node cn01
role slurmd
changed true
file {SHA} same /etc/a
file {SHA} changed /etc/b
package slurmd 24.11.5-4
unit slurmd.service active
command build
action wrote /etc/b
fact line a\u2028b {{"c"}}
fact  spaced \t out
later version
slurmstack-answer end
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("Welcome to cn01\n{ not json\nnode cn99\n", "logout\nfact line other\n"),
        ("a prompt without an end of line: ", "\n"),
        ("slurmstack-answer 1\nnode cn99\nfact old one\nslurmstack-answer end\n", ""),
        ('{"node": "cn99", "role": "r"}\n', '{"node": "cn99", "role": "r"}\n'),
    ],
)
def test_whole_answer_among_stray_lines(before: str, after: str) -> None:
    answer = parse_answer(before + FRAMED + after)
    assert answer.time == "2026-01-31T12:00:00Z"
    assert answer.node == "cn01"
    assert answer.role == "slurmd"
    assert answer.files["/etc/a"].sha256 == SHA
    assert {path: file.changed for path, file in answer.files.items()} == {
        "/etc/a": False,
        "/etc/b": True,
    }
    assert answer.packages == {"slurmd": "24.11.5-4"}
    assert answer.units == {"slurmd.service": "active"}
    assert answer.commands == ("build",)
    assert answer.actions == ("wrote /etc/b",)
    assert answer.facts == {"line": 'a\u2028b {"c"}', "spaced": "out"}
    assert answer.changed


def test_answer_that_an_applier_before_gave() -> None:
    document = {
        "node": "cn01",
        "role": "slurmd",
        "changed": True,
        "files": {"/etc/a": {"sha256": SHA, "changed": False}},
        "packages": {"slurmd": "24.11.5-4"},
        "units": {"slurmd.service": "active"},
        "commands": ["build"],
        "actions": ["wrote /etc/b"],
        "facts": {"line": "a\u2028b"},
        "later": "version",
    }
    line = json.dumps(document, ensure_ascii=False)
    stdout = f"Welcome to cn01\n{{ not json\n{line}\n{{ nor this\n"
    answer = parse_answer(stdout)
    assert answer.files["/etc/a"].sha256 == SHA
    assert answer.commands == ("build",)
    assert answer.facts == {"line": "a\u2028b"}
    assert answer.changed


def test_an_answer_within_the_frame_of_a_script() -> None:
    """As where the applier is asked among other things: what the script prints after it is kept."""
    inner = f"{BEGIN}\nnode cn01\n{END}\nafter it\n"
    assert within_frame(f"Welcome\n{BEGIN}\n{inner}\n{END}\nlogout\n") == (
        f"node cn01\n{END}\nafter it\n"
    )


def test_answer_of_the_node_role() -> None:
    text = json.dumps({"node": "n", "role": "node", "files": {"/x": {"sha256": SHA}}})
    answer = parse_answer(text)
    assert answer.files["/x"].changed is False


@pytest.mark.parametrize(
    ("stdout", "message"),
    [
        ("", "no answer"),
        (FRAMED.replace("slurmstack-answer end", ""), "its answer is cut off$"),
        (FRAMED.replace(SHA, SHA[1:]), "files./etc/a.sha256"),
        (FRAMED.replace("node cn01\n", ""), "node: Field required"),
        ("Welcome\nno mail\nlast login: today\n \n", "ends in 'last login: today'$"),
        # One line is quoted, and no more of it than a screen can show.
        ("x\n" + "y" * 300, f"ends in '{'y' * 200}'$"),
        (f"x\n{FRAMED}".replace("slurmstack-answer 1\n", "slurmstack-answer 2\n"), "no answer"),
        ('{"node": "a"}', "role: Field required"),
        ('{"node":"n","role":"r","files":{"/x":{"sha256":"1"}}}', "files./x.sha256"),
    ],
)
def test_no_answer(stdout: str, message: str) -> None:
    with pytest.raises(AnswerError, match=message):
        parse_answer(stdout)
