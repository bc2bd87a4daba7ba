"""``slurmstack:excluded``: the settings as if the nodes stood nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from settings import SettingsError, parse

RAW: dict[str, Any] = {
    "cluster": {"name": "x"},
    "hosts": {"ctl": "10.0.0.1", "cn[01-04]": "10.0.0.[11-14]", "gpu1": "10.0.0.21"},
    "roles": {"controller": "ctl"},
    "nodes": [{"name": "plain", "hosts": "cn[01-04]"}, {"name": "h100", "hosts": "gpu1"}],
    "partitions": {"all": {"Nodes": "ALL"}, "some": {"Nodes": "cn[01-02],gpu1"}},
    "topology": {
        "plugin": "tree",
        "switches": {
            "a": {"Nodes": "cn[01-04]"}, "b": {"Nodes": "gpu1"}, "top": {"Switches": "a,b"},
        },
    },
}  # fmt: skip


def test_the_settings_are_those_without_the_nodes() -> None:
    excluded = parse({**RAW, "excluded": {"cn02": "fan", "gpu1": "no GPU"}})
    without = parse(
        {
            **RAW,
            "nodes": [{"name": "plain", "hosts": "cn[01,03-04]"}],
            "partitions": {"all": {"Nodes": "ALL"}, "some": {"Nodes": "cn01"}},
            "topology": {
                "plugin": "tree",
                "switches": {"a": {"Nodes": "cn[01,03-04]"}, "top": {"Switches": "a"}},
            },
        }
    )
    assert excluded.excluded == {"cn02": "fan", "gpu1": "no GPU"}
    assert excluded.model_copy(update={"excluded": {}}) == without
    assert "gpu1" not in excluded.members


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"excluded": {"ctl": "x"}}, "excluded.ctl: expected a compute node"),
        ({"excluded": {"cn02": ""}}, "excluded.cn02: expected one line"),
        ({"excluded": {"cn02": "a\nb"}}, "excluded.cn02: expected one line"),
        (
            {"excluded": {"cn01": "x"}, "partitions": {"one": {"Nodes": "cn01"}}},
            "excluded: expected a node left in partition one",
        ),
        (
            {"nodes": [{"name": "cn01", "hosts": "cn[01-04]"}, RAW["nodes"][1]]},
            "nodes[0].name: expected another name than a host's",
        ),
        (
            {"nodes": [{"name": "a", "hosts": "cn[01-04]"}, {"name": "a", "hosts": "gpu1"}]},
            "nodes[1].name: expected each name for one class",
        ),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse({**RAW, **more})
    assert said in str(error.value)
