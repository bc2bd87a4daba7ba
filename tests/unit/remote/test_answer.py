import json

import pytest

from remote.answer import AnswerError, parse_answer

SHA = "0123456789abcdef" * 4


def test_whole_answer_after_stray_lines() -> None:
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
    stdout = f"Welcome to cn01\n{{ not json\n{json.dumps(document, ensure_ascii=False)}\n"
    answer = parse_answer(stdout)
    assert answer.files["/etc/a"].sha256 == SHA
    assert answer.commands == ("build",)
    assert answer.facts == {"line": "a\u2028b"}
    assert answer.changed


def test_answer_of_the_node_role() -> None:
    text = json.dumps({"node": "n", "role": "node", "files": {"/x": {"sha256": SHA}}})
    answer = parse_answer(text)
    assert answer.files["/x"].changed is False


@pytest.mark.parametrize(
    ("stdout", "message"),
    [
        ("", "no answer"),
        ("last login: today\n", "ends in 'last login: today'"),
        ('{"node": "a"}', "role: Field required"),
        ('{"node":"n","role":"r","files":{"/x":{"sha256":"1"}}}', "files./x.sha256"),
    ],
)
def test_no_answer(stdout: str, message: str) -> None:
    with pytest.raises(AnswerError, match=message):
        parse_answer(stdout)
