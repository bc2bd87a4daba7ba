"""slurmstack:monitoring: what cannot be right is refused with its path, and no secret is quoted."""

from __future__ import annotations

from typing import Any

import pytest

from settings import parse
from tests.unit.settings.test_rest import GOOD
from tests.unit.settings.test_settings import lab, mistakes

HOOK = {"receivers": {"night": {"webhook": {"urlSecret": "hook"}}}}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"monitoring": {"interval": 1}}, "monitoring.interval"),
        ({"monitoring": {"port": 9093}}, "monitoring"),
        ({"monitoring": {"renewDays": 90}}, "monitoring"),
        ({"monitoring": {"retentionSize": "much"}}, "monitoring.retentionSize"),
        ({"monitoring": {"mode": "exportersOnly"}}, "monitoring.clientCa"),
        ({"monitoring": {"clientCa": GOOD}}, "monitoring.clientCa"),
        ({"monitoring": {"clientCa": "none"}}, "monitoring.clientCa"),
        ({"monitoring": HOOK}, "monitoring.receivers.night.webhook.urlSecret"),
        ({"monitoring": {"routes": [{"receiver": "x", "labels": {"severity": "critical"}}]}},
         "monitoring.routes[0].receiver"),
        ({"monitoring": {"defaultReceiver": "x"}}, "monitoring.defaultReceiver"),
        ({"monitoring": {"receivers": {"a": {"mail": ["a@b"]}}}}, "monitoring.mail"),
        ({"monitoring": {"remoteWrite": [{"url": "http://a", "username": "b"}]}},
         "monitoring.remoteWrite[0]"),
        ({"monitoring": {"grafana": {"port": 9090}}}, "monitoring"),
        ({"monitoring": {"mode": "exportersOnly", "clientCa": GOOD, "grafana": {}}},
         "monitoring.mode"),
        ({"monitoring": {"grafana": {"package": {"url": "http://a/loki_3.0.0_amd64.deb",
                                                 "sha256": "a" * 64}}}},
         "monitoring.grafana.package"),
        ({"monitoring": {"grafana": {"proxy": {"addresses": []}}}},
         "monitoring.grafana.proxy.addresses"),
        ({"monitoring": {"grafana": {"proxy": {"addresses": ["0.0.0.0/0"]}}}},
         "monitoring.grafana.proxy.addresses"),
        ({"monitoringPassword": "long-enough-for-one"}, "monitoring"),
        ({"monitoring": {}, "monitoringPassword": "short"}, "monitoringPassword"),
        ({"monitoring": {}, "roles": {"controller": "ctl", "monitoring": "cn01"}},
         "roles.monitoring"),
        ({"monitoring": {}, "roles": {"controller": "ctl", "monitoring": "mon"}},
         "roles.monitoring"),
        ({"roles": {"controller": "ctl", "monitoring": "ctl"}}, "monitoring"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_its_path(changes: dict[str, Any], path: str) -> None:
    assert list(mistakes(changes)) == [f"slurmstack:{path}"]


def test_secrets_are_not_quoted() -> None:
    wrong = "two words of a secret"
    found = mistakes({"monitoring": HOOK, "monitoringSecrets": {"hook": wrong}})
    assert "slurmstack:monitoringSecrets.hook" in found
    assert wrong not in str(found)


def test_secrets_are_by_name() -> None:
    settings = parse({**lab(), "monitoring": HOOK, "monitoringSecrets": {"hook": "http://x/y"}})
    assert settings.monitoring_secrets["hook"].get_secret_value() == "http://x/y"
    assert "http://x/y" not in repr(settings)
