"""What monitoring puts on hosts: whom it watches and tells, and what goes where as a secret."""

from __future__ import annotations

import base64
import configparser
import json
from typing import Any

import bcrypt
import yaml

from components.monitoring.dashboards.files import files
from components.monitoring.grafana import grafana_bundle, grafana_secrets_bundle
from components.monitoring.node_exporter import node_exporter_bundle
from components.monitoring.prometheus import monitoring_bundle, secrets_bundle
from components.monitoring.targets import gpu_targets, targets
from components.packages.package_repository import package_files
from remote.bundle import Bundle, File, Package, Unit
from remote.reading import read
from settings import Settings, parse
from tests.unit.components.test_cluster import Node, bare, commands, deploy, plain
from tests.unit.settings.test_rest import GOOD, with_certificate

HOSTS = {**bare()["hosts"], "mon": "10.73.0.15"}
SALT = "s" * 21


def settings(monitoring: dict[str, Any], **changes: Any) -> Settings:
    return parse({**bare(), "monitoring": monitoring, **changes})


def text(bundle: Bundle, end: str) -> str:
    (found,) = [
        str(part.content)
        for part in bundle.parts
        if isinstance(part, File) and part.path.endswith(end)
    ]
    return found


def test_targets_are_the_hosts_that_are_there() -> None:
    hosts = {"ctl": "10.73.0.10", "cn01": "10.73.0.21", "cn02": "10.73.0.22", "mon": "fd00::15"}
    found = settings({}, hosts=hosts, roles={"controller": "ctl", "monitoring": "mon"})
    entries = {one["labels"]["instance"]: one for one in json.loads(targets(found))}
    assert {name: one["targets"][0] for name, one in entries.items()} == {
        "ctl": "10.73.0.10:9100", "cn01": "10.73.0.21:9100", "cn02": "10.73.0.22:9100",
        "mon": "[fd00::15]:9100",
    }  # fmt: skip
    assert {name: one["labels"]["role"] for name, one in entries.items()} == {
        "ctl": "controller", "cn01": "compute", "cn02": "compute", "mon": "monitoring",
    }  # fmt: skip
    lost = {**hosts, "cn01": {"address": "10.73.0.21", "lost": True}}
    gone = settings({}, hosts=lost, roles={"controller": "ctl", "monitoring": "mon"})
    assert "cn01" not in targets(gone)
    out = settings({}, excluded={"cn02": "a new board"})
    assert "cn02" not in targets(out)


def test_gpus_are_asked_of_nodes_that_have_or_may_have_real_ones() -> None:
    hosts = {"ctl": "10.73.0.10", "cn[01-05]": "10.73.0.[21-25]"}
    h100 = {"Name": "gpu", "Type": "h100", "File": "/dev/nvidia[0-7]"}
    nodes: list[dict[str, Any]] = [
        {"hosts": "cn01"},
        {"hosts": "cn02", "Gres": [{"Name": "nic", "File": "/dev/nic0"}, h100]},
        {"hosts": "cn04", "Gres": [{"Name": "nic", "File": "/dev/nic0"}]},
        {"hosts": "cn05", "Gres": []},
    ]
    of: dict[str, Any] = {"hosts": hosts, "nodes": nodes, "partitions": {"main": {"Nodes": "ALL"}}}
    told = json.loads(gpu_targets(settings({"gpuExporterPort": 9400}, **of)))
    assert [it["targets"] for it in told] == [["10.73.0.21:9400"], ["10.73.0.22:9400"]]
    assert [it["labels"]["instance"] for it in told] == ["cn01", "cn02"]
    assert json.loads(gpu_targets(settings({}, **of))) == []
    # What stands in for GPUs answers nothing.
    nodes[1]["Gres"] = [{"Name": "gpu", "Type": "h100", "Count": 8, "standIn": True}]
    told = json.loads(gpu_targets(settings({"gpuExporterPort": 9400}, **of)))
    assert [it["labels"]["instance"] for it in told] == ["cn01"]


def test_a_host_of_its_own_gets_the_servers() -> None:
    node, outputs = deploy(
        hosts=HOSTS, roles={"controller": "ctl", "monitoring": "mon"}, monitoring={}
    )
    found = set(commands(node))
    assert {"mon-monitoring-tls", "mon-monitoring-secrets", "mon-monitoring"} <= found
    assert {"ctl-slurm-exporter", "ctl-node-exporter", "mon-node-exporter"} <= found
    assert not {"ctl-monitoring", "mon-slurm-exporter", "mon-slurmd"} & found
    assert outputs["cluster"]["monitoringUrl"] == "https://10.73.0.15:9090"


def test_who_is_let_in_is_the_ca_that_the_monitoring_host_has_made() -> None:
    """And whom it believes are the CAs of the exporters, host by host."""

    class Made(Node):
        def answer(self, name: str, inputs: dict[str, Any]) -> str:
            answer = super().answer(name, inputs)
            if not name.endswith(("-monitoring-tls", "-node-exporter")):
                return answer
            told = json.loads(answer)
            der = base64.b64encode(f"the CA of {told['node']}".encode()).decode()
            own = "exporter" if name.endswith("-node-exporter") else "metrics"
            return json.dumps({**told, "facts": {f"{own}-ca": der}})

    def pem(host: str) -> str:
        der = base64.b64encode(f"the CA of {host}".encode()).decode()
        return f"-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n"

    node, outputs = deploy(Made(), monitoring={"grafana": {}})
    sent = {name: read(plain(it["stdin"])) for name, it in commands(node).items()
            if name.endswith(("-node-exporter", "-monitoring", "-grafana"))}  # fmt: skip
    for host in ("ctl", "cn01", "cn02"):
        assert text(sent[f"{host}-node-exporter"], "client-ca.crt") == pem("ctl")
    assert text(sent["ctl-monitoring"], "exporter-cas.crt") == "".join(
        map(pem, ("cn01", "cn02", "ctl"))
    )
    assert text(sent["ctl-grafana"], "prometheus-ca.crt") == pem("ctl")
    assert outputs["cluster"]["monitoringCa"] == pem("ctl")


def test_what_the_product_knows_of_a_host_is_looked_at() -> None:
    """Keys and certificates by age, where they are."""

    def script(host: str, **changes: Any) -> str:
        return text(node_exporter_bundle(host, settings({}, **changes), GOOD), "/host-metrics")

    keys = ("/etc/slurm/slurm.jwks", "/etc/slurm/jwt.key")
    jwt = script("ctl", jwt={})
    assert all(path in jwt for path in keys)
    assert not any(path in script("cn01", jwt={}) + script("ctl") for path in keys)
    made, given = "/etc/slurm/tls/cluster.pem", "/etc/slurm/tls/site.pem"
    own = script("ctl", **with_certificate(GOOD))
    assert (given in own, made in own) == (True, False)
    other = script("ctl", jwt={}, rest={})
    assert (given in other, made in other) == (False, True)
    assert given not in script("cn01", **with_certificate(GOOD))
    assert "/var/backups/slurmdbd" in script("ctl", accounting={})
    assert "/var/backups/slurmdbd" not in script("cn01", accounting={}) + script("ctl")
    assert "/etc/munge/munge.key" in script("cn01")


def test_without_servers_there_are_exporters_and_files() -> None:
    node, outputs = deploy(monitoring={"mode": "exportersOnly", "clientCa": GOOD})
    found = set(commands(node))
    assert {"ctl-monitoring", "cn01-node-exporter", "ctl-slurm-exporter"} <= found
    assert not {"ctl-monitoring-tls", "ctl-monitoring-secrets"} & found
    assert not [args for args in node.made.values() if "monitoring-" in args.name]
    assert "monitoringUrl" not in outputs["cluster"]
    chosen = settings({"mode": "exportersOnly", "clientCa": GOOD})
    bundle = monitoring_bundle("ctl", chosen, {"ctl": "pem\n"})
    assert [part for part in bundle.parts if isinstance(part, Unit)] == [
        Unit("prometheus.service", enabled=False, running=False)
    ]
    assert text(bundle, "exporter-cas.crt") == "pem\n"
    assert text(node_exporter_bundle("cn01", chosen, GOOD), "client-ca.crt") == GOOD


def test_the_pages_take_the_password_and_no_other() -> None:
    bundle = secrets_bundle("ctl", settings({}), "a-password-made", SALT)
    users = yaml.safe_load(text(bundle, "web.yml"))["basic_auth_users"]
    assert list(users) == ["slurmstack"]
    hashed = users["slurmstack"]
    assert bcrypt.checkpw(b"a-password-made", hashed.encode())
    assert not bcrypt.checkpw(b"a-password-madE", hashed.encode())
    assert "a-password-made" not in text(bundle, "web.yml")
    again = secrets_bundle("ctl", settings({}), "a-password-made", SALT)
    assert again.render() == bundle.render()


def test_secrets_are_files_that_the_configurations_name() -> None:
    names = ("relay", "slack", "duty", "hook", "write")
    chosen = settings(
        {
            "mail": {
                "smarthost": "m:25", "sender": "a@b", "username": "u", "passwordSecret": "relay",
            },
            "remoteWrite": [{"url": "https://w/", "username": "u", "passwordSecret": "write"}],
            "receivers": {
                "all": {
                    "mail": ["x@y"],
                    "slack": {"channel": "#c", "urlSecret": "slack"},
                    "pagerDuty": {"routingKeySecret": "duty"},
                    "webhook": {"urlSecret": "hook"},
                },
                "other": {"webhook": {"url": "http://z/"}},
            },
            "routes": [{"receiver": "other", "labels": {"severity": "warning", "cluster": 'a"b'}}],
        },
        monitoringSecrets={name: f"the-{name}-secret" for name in names},
    )  # fmt: skip
    shut = secrets_bundle("ctl", chosen, "a-password-made", SALT)
    assert {name: text(shut, f"/secrets/{name}") for name in names} == {
        name: f"the-{name}-secret" for name in names
    }
    public = monitoring_bundle("ctl", chosen, {})
    assert "-secret" not in public.render()
    alertmanager = yaml.safe_load(text(public, "alertmanager.yml"))
    assert alertmanager["global"]["smtp_auth_password_file"].endswith("/secrets/relay")
    assert alertmanager["route"]["receiver"] == "all"
    assert alertmanager["route"]["routes"][0]["matchers"] == [
        'cluster="a\\"b"', 'severity="warning"',
    ]  # fmt: skip
    every, other = alertmanager["receivers"]
    assert every["slack_configs"][0]["api_url_file"].endswith("/secrets/slack")
    assert every["pagerduty_configs"][0]["routing_key_file"].endswith("/secrets/duty")
    assert every["webhook_configs"][0]["url_file"].endswith("/secrets/hook")
    assert other["webhook_configs"] == [{"url": "http://z/", "send_resolved": True}]
    prometheus = yaml.safe_load(text(public, "prometheus.yml"))
    (write,) = prometheus["remote_write"]
    assert write["basic_auth"]["password_file"].endswith("/secrets/write")


def test_retention_and_who_is_asked() -> None:
    chosen = settings({"retention": "7d", "retentionSize": "5GB", "gpuExporterPort": 9400},
                      slurm={"extra": {"MetricsType": "metrics/openmetrics"}})  # fmt: skip
    bundle = monitoring_bundle("ctl", chosen, {})
    flags = text(bundle, "/default/prometheus")
    assert f"--storage.tsdb.retention.time={7 * 86400}s" in flags
    assert "--storage.tsdb.retention.size=5GB" in flags
    asked = yaml.safe_load(text(bundle, "prometheus.yml"))["scrape_configs"]
    jobs = {one["job_name"]: one for one in asked}
    assert {"node", "gpu", "prometheus", "alertmanager", "slurmctld-jobs"} <= set(jobs)
    assert jobs["slurmctld-jobs"]["static_configs"][0]["targets"] == ["10.73.0.10:6817"]
    # Its slurm_jobs is one number, and the exporter's is one by state.
    for name, job in jobs.items():
        asked = name.startswith("slurmctld-")
        renamed = [it["replacement"] for it in job.get("metric_relabel_configs", ())]
        assert renamed == (["slurmctld_$1"] if asked else []), name
    assert jobs["node"]["tls_config"]["ca_file"].endswith("exporter-cas.crt")
    assert "10.73.0.21:9400" in text(bundle, "gpus.json")


def test_grafana_gets_its_secrets_as_files() -> None:
    chosen = settings({"grafana": {"port": 3001}, "serverName": "watch.example.org"})
    shut = grafana_secrets_bundle("ctl", chosen, "the-admin", "the-key", "the-pages")
    held = {part.path: part for part in shut.parts if isinstance(part, File)}
    assert {(part.owner, part.mode) for part in held.values()} == {("root:grafana", "0440")}
    public = grafana_bundle("ctl", chosen, GOOD)
    for secret in ("the-admin", "the-key", "the-pages"):
        assert secret not in public.render()
    # Each of them is named where it is used.
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(text(public, "/grafana.ini"))
    source = yaml.safe_load(text(public, "/datasources/slurmstack.yaml"))["datasources"][0]
    named = {
        ini["security"]["admin_password"], ini["security"]["secret_key"],
        source["secureJsonData"]["basicAuthPassword"],
    }  # fmt: skip
    assert named == {f"$__file{{{path}}}" for path in held}
    assert ini["server"]["root_url"] == "https://watch.example.org:3001/"
    assert not ini.has_section("auth.proxy")
    assert ini["auth.anonymous"]["enabled"] == "false"
    assert source["url"] == "https://10.73.0.10:9090"
    provider = yaml.safe_load(text(public, "/dashboards/slurmstack.yaml"))["providers"][0]
    assert provider["options"]["path"] == "/etc/prometheus/slurmstack/dashboards"


def test_the_sites_proxy_is_believed_from_its_addresses() -> None:
    proxy = {"addresses": ["10.0.0.5", "10.0.1.0/28"], "header": "X-User", "role": "Editor"}
    bundle = grafana_bundle("ctl", settings({"grafana": {"proxy": proxy}}), GOOD)
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(text(bundle, "/grafana.ini"))
    assert ini["auth.proxy"]["whitelist"] == "10.0.0.5, 10.0.1.0/28"
    assert ini["auth.proxy"]["header_name"] == "X-User"
    assert ini["users"]["auto_assign_org_role"] == "Editor"


def test_grafanas_package_is_the_settings() -> None:
    file = {"url": "http://a/grafana-enterprise_11.6.0_amd64.deb", "sha256": "a" * 64}
    chosen = settings({"grafana": {"package": file}})
    assert Package("grafana-enterprise", "11.6.0") in grafana_bundle("ctl", chosen, GOOD).parts
    assert [one.package for one in package_files(chosen)] == ["grafana-enterprise"]
    plain = grafana_bundle("ctl", settings({"grafana": {}}), GOOD)
    assert Package("grafana") in plain.parts


def test_dashboards_are_files_wherever_grafana_is() -> None:
    alone = settings({"mode": "exportersOnly", "clientCa": GOOD})
    for chosen in (settings({}), alone):
        bundle = monitoring_bundle("ctl", chosen, {})
        for name, content in files().items():
            assert text(bundle, f"/dashboards/{name}") == content
