"""Hosts whose key is not known: refused before anything is sent, unless they are gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pulumi
import pytest

from discovery.host_keys import UnknownHostKey, hosts
from settings import Settings, parse
from tests.unit.settings.test_settings import lab

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGbM0S0Qe0nGJm3XTXpXh1XgFzqQ2J1mZb0v2p4M3b6N"


def settings(**cn02: Any) -> Settings:
    """All keys are in the settings but that of cn02, where nothing listens."""
    known = {"ctl": "10.73.0.10", "cn01": "10.73.0.21"}
    return parse(
        {
            **lab(),
            "ssh": {},
            "hosts": {
                **{name: {"address": address, "hostKey": KEY} for name, address in known.items()},
                "cn02": {"address": "127.0.0.1", "port": 1, **cn02},
            },
        }
    )


def test_a_host_without_a_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)
    with pytest.raises(
        UnknownHostKey, match=r"(?s)nothing was sent to any host.*- cn02: "
    ) as error:
        hosts(settings(), tmp_path)
    assert "cn01" not in str(error.value)


def test_in_a_preview_it_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: True)
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)
    assert hosts(settings(), tmp_path)["cn02"].host_key == ""
    assert warnings == ["no host key is known for cn02; `pulumi up` refuses them"]


def test_a_lost_host_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulumi.runtime, "is_dry_run", lambda: False)
    reached = hosts(settings(lost=True), tmp_path)
    assert reached["cn01"].host_key == KEY
    assert reached["cn02"].lost
