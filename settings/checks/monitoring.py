"""Monitoring: hosts, secrets and receivers that are named where they are not."""

from __future__ import annotations

from collections.abc import Iterator

from settings.checks.draft import Draft
from settings.monitoring import Monitoring
from settings.problems import Problem


def host(draft: Draft) -> Iterator[Problem]:
    """What watches is a host that is there and runs no jobs."""
    if draft.hosts is None or draft.roles is None or draft.roles.monitoring is None:
        return
    path, name = draft.path("roles.monitoring"), draft.roles.monitoring
    if "monitoring" not in draft.raw:
        yield Problem(draft.path("monitoring"), f"what {path} is for", "nothing")
    if name not in draft.hosts:
        yield Problem(path, "a host of slurmstack:hosts", name)
    elif draft.hosts[name].lost:
        yield Problem(path, "a host that is not lost", f"{name}, marked lost")
    elif name in draft.compute:
        yield Problem(path, "a host that runs no jobs", name)


def references(draft: Draft) -> Iterator[Problem]:
    """Secrets, receivers and a relay that are used and not given, or given and not used."""
    path = draft.path("monitoring")
    for key in ("monitoringPassword", "monitoringSecrets"):
        if key in draft.raw and "monitoring" not in draft.raw:
            yield Problem(path, f"what {draft.path(key)} is for", "nothing")
    setting = draft.part("monitoring", Monitoring)
    if setting is None:
        return
    yield from _mode(setting, path)
    yield from draft.unknown_secrets(path, setting.secrets(), "monitoringSecrets")
    used = [(f"routes[{index}].receiver", it.receiver) for index, it in enumerate(setting.routes)]
    if setting.default_receiver is not None:
        used.append(("defaultReceiver", setting.default_receiver))
    for where, name in used:
        if name not in setting.receivers:
            yield Problem(f"{path}.{where}", f"a name in {path}.receivers", name)
    for name, receiver in setting.receivers.items():
        if receiver.mail and setting.mail is None:
            yield Problem(f"{path}.mail", f"a relay for {path}.receivers.{name}.mail", "nothing")


def _mode(setting: Monitoring, path: str) -> Iterator[Problem]:
    if setting.mode == "exportersOnly":
        if setting.client_ca is None:
            found = "nothing"
            yield Problem(f"{path}.clientCa", "the CA of the Prometheus that asks", found)
        if setting.receivers or setting.remote_write or setting.grafana is not None:
            expected = "full, for receivers, remoteWrite and grafana"
            yield Problem(f"{path}.mode", expected, setting.mode)
    elif setting.client_ca is not None:
        yield Problem(f"{path}.clientCa", "nothing, as the Prometheus is the cluster's", "a CA")
