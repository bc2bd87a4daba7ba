"""Monitoring as its people meet it: pages behind TLS and a password, every host watched, an alert
that is delivered once, and all of it gone with the setting."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.monitoring.dashboards.files import files as dashboards
from tests.lab import artifacts, trouble
from tests.lab.conftest import CHECKOUT, RunningLab, await_that
from tests.lab.rest_client import cluster

pytestmark = pytest.mark.lab

OUTSIDE = Path(__file__).parent / "stand_in" / "outside.py"
RULES = CHECKOUT / "tests/unit/components/monitoring/rules"
GRAFANA = "/etc/grafana/slurmstack/secrets"
#: Of the webhook, so that it is a secret that is seen nowhere.
TOKEN = "aWebhooksOwnSecretWord"
#: Secrets of those that are told, by the names that the settings give them.
SECRETS = {
    "hook": f"http://{{address}}:8099/{TOKEN}",
    "slack": "http://{address}:8099/slack/aSecretOfSlacks",
    "pager": "aRoutingKeyOfPagerDuty",
    "site": "aPasswordOfTheSites",
}
#: Where PagerDuty is, for this machine alone, with a certificate that it trusts.
PAGER = """
mkdir -p /run/outside /etc/ssl/certs; cd /run/outside
trust=/etc/ssl/certs/ca-certificates.crt
touch "$trust"
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=events.pagerduty.com \
    -addext subjectAltName=DNS:events.pagerduty.com -keyout key -out crt 2>/dev/null
cp -p /etc/hosts "$trust" .
echo 127.0.0.1 events.pagerduty.com >>/etc/hosts
cat crt >>"$trust"
"""
NO_PAGER = """
systemctl stop outside
cd /run/outside || exit
cat hosts >/etc/hosts
cat ca-certificates.crt >/etc/ssl/certs/ca-certificates.crt
rm -rf /run/outside
"""


@dataclass(frozen=True)
class Pages:
    """Prometheus and Alertmanager of a lab, as a browser reaches them."""

    lab: RunningLab
    ca: str
    password: str

    def ask(
        self,
        url: str,
        password: str | None = None,
        ca: str | None = None,
        user: str = "slurmstack",
    ) -> Any:
        """The answer's JSON, or its status where that is none of success."""
        request = urllib.request.Request(url)
        if password is not None:
            word = base64.b64encode(f"{user}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        context = ssl.create_default_context(cadata=ca or self.ca)
        try:
            with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code

    @property
    def prometheus(self) -> str:
        return f"https://{self.lab.address('ctl')}:9090"

    @property
    def alertmanager(self) -> str:
        return f"https://{self.lab.address('ctl')}:9093"

    def targets(self) -> dict[str, dict[str, str]]:
        """Instance → labels, and health, of the hosts that are watched."""
        found = self.ask(f"{self.prometheus}/api/v1/targets", self.password)
        return {
            one["labels"]["instance"]: {**one["labels"], "health": one["health"]}
            for one in found["data"]["activeTargets"]
            if one["labels"]["job"] == "node"
        }

    def series(self, query: str) -> list[dict[str, Any]]:
        words = urllib.parse.urlencode({"query": query})
        found = self.ask(f"{self.prometheus}/api/v1/query?{words}", self.password)
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def alerts(self) -> dict[str, dict[str, Any]]:
        """Name → what Alertmanager says of it."""
        found = self.ask(f"{self.alertmanager}/api/v2/alerts", self.password)
        return {one["labels"]["alertname"]: one for one in found}

    def seen(self, queries: Iterable[str]) -> dict[str, bool]:
        """Query → whether it gives series."""
        known = dict.fromkeys(queries)
        with ThreadPoolExecutor(8) as pool:
            return dict(zip(known, pool.map(lambda it: bool(self.series(it)), known), strict=True))

    def told(self, kind: str = "hook") -> str:
        """All that one outside was sent (stand_in/outside.py)."""
        return self.lab.ssh("ctl", f"cat /run/outside/{kind} 2>/dev/null", check=False).stdout


@pytest.fixture(scope="module")
def bare(lab: RunningLab) -> Iterator[str]:
    """The settings without monitoring, to which the lab returns."""
    before = lab.settings.read_text()
    yield before
    lab.ssh("ctl", NO_PAGER, check=False)
    if lab.settings.read_text() != before:
        lab.settings.write_text(before)
        lab.up()


@pytest.fixture(scope="module")
def pages(lab: RunningLab, bare: str, tmp_path_factory: pytest.TempPathFactory) -> Pages:
    """The lab, watched, with a receiver on the controller. Grafana is a stand-in: no registry has
    it."""
    grafana = artifacts.grafana_stand_in(tmp_path_factory.mktemp("grafana"))
    artifacts.bring(lab, grafana)
    lab.ssh("ctl", PAGER)
    lab.send("ctl", "cat >/run/outside/program", OUTSIDE.read_bytes())
    lab.ssh("ctl", "cd /run/outside && systemd-run --quiet --unit=outside python3 $PWD/program "
                   "$PWD $PWD/crt $PWD/key")  # fmt: skip
    for name, secret in SECRETS.items():
        lab.secret(f"monitoringSecrets.{name}", secret.format(address=lab.address("ctl")))

    def slurm(config: dict[str, Any]) -> None:
        # A node that is gone is DOWN soon; licences are there to be counted.
        config["slurm"] |= {"SlurmdTimeout": 20}
        config["slurm"]["extra"] |= {"Licenses": "matlab:2"}

    lab.change(slurm)
    lab.set(
        driftCheck={},
        monitoring={
            "interval": 5,
            "slurmInterval": 5,
            "groupWait": 10,
            "mail": {
                "smarthost": "127.0.0.1:25",
                "sender": "slurm@example.org",
                "requireTls": False,
            },
            "remoteWrite": [
                {
                    "url": f"http://{lab.address('ctl')}:8099/write",
                    "username": "lab",
                    "passwordSecret": "site",
                }
            ],
            "receivers": {
                "night": {
                    "webhook": {"urlSecret": "hook"},
                    "mail": ["ops@example.org"],
                    "slack": {"channel": "#ops", "urlSecret": "slack"},
                    "pagerDuty": {"routingKeySecret": "pager"},
                },
                "day": {"mail": ["day@example.org"]},
            },
            "routes": [{"receiver": "night", "labels": {"severity": "critical"}}],
            "grafana": {
                "package": artifacts.entry(grafana),
                "proxy": {"addresses": [lab.address("login01")]},
            },
        },
    )
    lab.up()
    password = lab.ssh("ctl", "cat /etc/prometheus/slurmstack/secrets/pages").stdout
    return Pages(lab, cluster(lab)["monitoringCa"], password)


def test_every_host_is_watched_over_tls(lab: RunningLab, pages: Pages) -> None:
    hosts = {"ctl", "login01", "cn01", "cn02"}
    await_that(lambda: {it["health"] for it in pages.targets().values()} == {"up"})
    targets = pages.targets()
    assert set(targets) == hosts
    assert {(it["cluster"], it["job"]) for it in targets.values()} == {("lab", "node")}
    assert targets["cn01"]["class"] == "dgx"
    assert (targets["cn01"]["role"], targets["login01"]["role"]) == ("compute", "login")


def test_pages_and_exporters_are_shut_to_others(lab: RunningLab, pages: Pages) -> None:
    for url in (f"{pages.prometheus}/api/v1/targets", f"{pages.alertmanager}/api/v2/alerts"):
        assert pages.ask(url) == 401
        assert pages.ask(url, "another-password") == 401
        plain = url.replace("https", "http")
        assert pages.ask(plain, pages.password) == 400
    # An exporter has its own host's CA, and answers clients of the monitoring host's alone.
    ca = lab.ssh("cn01", "cat /etc/prometheus/slurmstack/exporter-tls/ca.crt").stdout
    url = f"https://{lab.address('cn01')}:9100/metrics"
    with pytest.raises((ssl.SSLError, urllib.error.URLError, ConnectionError)):
        pages.ask(url, ca=ca)
    # The certificate of another node lets nobody in; the monitoring host's does.
    ask = f"curl -s --insecure --cert /etc/prometheus/slurmstack/{{}}/cluster.pem {url} | wc -l"
    assert lab.ssh("cn02", ask.format("exporter-tls")).stdout.strip() == "0"
    assert int(lab.ssh("ctl", ask.format("tls")).stdout) > 100


def test_grafana_is_provisioned(lab: RunningLab, pages: Pages) -> None:
    """By a stand-in, which reads grafana.ini and what is provisioned as Grafana's own user."""
    told = cluster(lab)
    url, ca = told["grafanaUrl"], told["grafanaCa"]
    password = lab.ssh("ctl", f"cat {GRAFANA}/admin").stdout
    for good, status in ((password, {}), (pages.password, 401), (None, 401)):
        # It asks Prometheus by the data source.
        found = pages.ask(f"{url}/api/datasources/uid/slurmstack/health", good, ca, "admin")
        assert found == status
    found = pages.ask(f"{url}/api/search", password, ca, "admin")
    assert {f"{one['folderTitle']}/{one['uid']}" for one in found} == {
        f"{folder}/slurmstack-{name}"
        for folder, name in (it.removesuffix(".json").split("/") for it in dashboards())
    }
    # A header is believed from the proxy's address alone.
    ask = f"curl -sk -o /dev/null -w '%{{http_code}}' -H 'X-WEBAUTH-USER: alice' {url}/api/user"
    assert lab.ssh("login01", ask).stdout == "200"
    assert lab.ssh("cn01", ask).stdout == "401"
    mode = lab.ssh("ctl", f"stat -c '%a %U %G' {GRAFANA}/*").stdout
    assert set(mode.splitlines()) == {"440 root grafana"}


def test_logs_of_what_watches(lab: RunningLab, pages: Pages) -> None:
    said = lab.run("slurmstack", "logs", "monitoring", "--stack", lab.name).stdout
    for word in ("alertmanager", "Grafana", "Server is ready"):
        assert word in said


def test_no_secret_is_seen(lab: RunningLab, pages: Pages) -> None:
    export = lab.pulumi("stack", "export").stdout
    grafana = lab.ssh("ctl", f"cat {GRAFANA}/admin; echo; cat {GRAFANA}/secret-key").stdout.split()
    words = (TOKEN, "aSecretOfSlacks", SECRETS["pager"], SECRETS["site"])
    for secret in (*words, pages.password, *grafana):
        assert secret not in export
        assert secret not in lab.settings.read_text()
        for node in ("ctl", "cn01"):
            found = lab.ssh(node, f"grep -rlF -e {secret} /etc /var/lib /usr/local /tmp; true")
            known = ("/secrets/", "/var/lib/grafana/grafana.db")
            shut = [path for path in found.stdout.split() if not any(it in path for it in known)]
            assert shut == []
    mode = lab.ssh("ctl", "stat -c '%a %U' /etc/prometheus/slurmstack/secrets/*").stdout
    assert set(mode.splitlines()) == {"400 prometheus"}


def test_what_slurm_says_is_seen(lab: RunningLab, pages: Pages) -> None:
    def labels(series: str, name: str) -> set[str]:
        return {it["metric"][name] for it in pages.series(series)}

    lab.ssh("ctl", "scontrol update nodename=cn02 state=drain reason='the fan'")
    try:
        lab.ssh("ctl", "cd /tmp && sbatch --parsable --nodelist=cn01 --wrap 'exit 3'")
        failed = 'slurm_jobs_failed_total{node="cn01",state="FAILED"}'
        await_that(lambda: bool(pages.series(failed)))
        drained = 'slurm_node_drain_timestamp_seconds{node="cn02",reason="the fan",user="root"}'
        await_that(lambda: bool(pages.series(drained)))
        (stand_ins,) = pages.series('slurm_node_gpus{node="cn01",state="idle",type="h100"}')
        assert stand_ins["value"][1] == "4"
        assert pages.series('slurm_nodes{state="IDLE",cluster="lab"}')
        assert pages.series("slurm_job_wait_seconds_count")
        # Each host looks at its own files once in a while.
        await_that(lambda: len(labels("slurmstack_configuration_info", "sha256")) == 1)
        expires = "slurmstack_certificate_expires_timestamp_seconds"
        await_that(lambda: labels(expires, "instance") == {"ctl", "login01", "cn01", "cn02"})
    finally:
        lab.ssh("ctl", "scontrol update nodename=cn02 state=resume")


def test_a_page_has_what_prometheus_saw(lab: RunningLab, pages: Pages, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    words = ("report", str(file), "--since", "10m", "--stack", lab.name)
    lab.run("slurmstack", *words)
    text = file.read_text()
    for title in ("Nodes by state", "GPUs", "CPUs"):
        drawing = text.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]
        assert re.search(r'<poly(gon|line) class="c0" points="[0-9]', drawing), title
    assert pages.password not in text


def test_slurmctld_is_asked_once_an_interval_whoever_asks(lab: RunningLab, pages: Pages) -> None:
    def asked() -> int:
        found = json.loads(lab.ssh("ctl", "sdiag --json").stdout)["statistics"]
        return sum(
            int(it["count"])
            for it in found["rpcs_by_message_type"]
            if it["message_type"] == "REQUEST_SHARE_INFO"
        )

    pem = "/etc/prometheus/slurmstack/tls/cluster.pem"
    ask = f"curl -sk --cert {pem} https://{lab.address('ctl')}:9100/metrics >/dev/null"
    before = asked()
    began = float(lab.ssh("ctl", "cat /proc/uptime").stdout.split()[0])
    lab.ssh("ctl", f"for i in $(seq 40); do {ask}; done")
    took = float(lab.ssh("ctl", "cat /proc/uptime").stdout.split()[0]) - began
    assert asked() - before <= took / 5 + 2


def test_each_rule_fires_and_does_not(lab: RunningLab, pages: Pages) -> None:
    """promtool runs the rules' own tests, here for certain."""
    lab.ssh("ctl", "rm -rf /run/rules && mkdir /run/rules")
    for test in sorted(RULES.glob("*.yml")):
        deployed = f"rule_files: [/etc/prometheus/slurmstack/rules/{test.name}]"
        text = re.sub(r"^rule_files:.*$", deployed, test.read_text(), flags=re.MULTILINE)
        lab.send("ctl", f"cat >/run/rules/{test.name}", text.encode())
    done = lab.ssh("ctl", "promtool test rules /run/rules/*.yml 2>&1; rm -rf /run/rules")
    assert done.stdout.count("SUCCESS") == 4
    assert "FAILED" not in done.stdout, done.stdout


def test_a_dead_slurmctld_is_one_message(lab: RunningLab, pages: Pages) -> None:
    try:
        lab.ssh("ctl", "systemctl stop slurmctld slurmrestd")
        await_that(lambda: {"SlurmctldAway", "SlurmrestdAway"} <= set(pages.alerts()))
        await_that(lambda: "SlurmctldAway" in pages.told())
        alerts = pages.alerts()
        assert alerts["SlurmctldAway"]["status"]["state"] == "active"
        assert alerts["SlurmctldAway"]["labels"]["cluster"] == "lab"
        assert "systemctl start slurmctld" in alerts["SlurmctldAway"]["annotations"]["description"]
        # Nobody is told of what follows from it.
        assert alerts["SlurmrestdAway"]["status"]["state"] == "suppressed"
        assert alerts["SlurmrestdAway"]["status"]["inhibitedBy"]
        told = pages.told()
        assert told.startswith(f"/{TOKEN} ")
        assert "SlurmrestdAway" not in told
        # In every way that its receiver has.
        await_that(lambda: all(pages.told(it) for it in ("mail", "slack", "pagerduty")))
        mail = pages.told("mail")
        assert mail.startswith("MAIL FROM:<slurm@example.org>")
        assert "RCPT TO:<ops@example.org>" in mail
        slack = json.loads(pages.told("slack").partition(" ")[2].splitlines()[0])
        assert slack["channel"] == "#ops"
        assert "systemctl start slurmctld" in slack["attachments"][0]["text"]
        pager = json.loads(pages.told("pagerduty").partition(" ")[2].splitlines()[0])
        assert (pager["routing_key"], pager["event_action"]) == (SECRETS["pager"], "trigger")
    finally:
        lab.ssh("ctl", "systemctl start slurmctld slurmrestd")
    await_that(lambda: not {"SlurmctldAway", "SlurmrestdAway"} & set(pages.alerts()))
    # Told as over, too, by the same ways.
    await_that(lambda: '"event_action":"resolve"' in pages.told("pagerduty"))


def test_a_prometheus_of_the_site_is_written_to(pages: Pages) -> None:
    await_that(lambda: len(pages.told("written").splitlines()) > 2)
    _, kind, word, size = pages.told("written").splitlines()[0].split()
    assert (kind, base64.b64decode(word).decode()) == ("Basic", f"lab:{SECRETS['site']}")
    assert int(size) > 100


@pytest.fixture(scope="class")
def troubled(lab: RunningLab, pages: Pages) -> Iterator[set[str]]:
    """The lab when much of it is broken; the alerts that came of it."""
    expected = {*trouble.POWER_CUT, *(name for deed in trouble.DEEDS for name in deed.alerts)}
    seen: set[str] = set()

    def came() -> bool:
        seen.update(pages.alerts())
        return expected <= seen

    trouble.begin(lab)
    try:
        first = ('slurm_jobs_failed_total{node="cn01"}', "DCGM_FI_DEV_GPU_UTIL")
        await_that(lambda: all(pages.seen(first).values()))
        trouble.do(lab)
        with contextlib.suppress(AssertionError):  # the test says which are missing
            await_that(came)
        yield seen
    finally:
        trouble.undo(lab)


class TestTrouble:
    def test_each_alert_comes_of_what_was_done(self, troubled: set[str]) -> None:
        """GPUs and InfiniBand by a stand-in for what their exporters say."""
        expected = {*trouble.POWER_CUT, *(name for deed in trouble.DEEDS for name in deed.alerts)}
        assert expected - troubled == set()

    def test_every_panel_has_series(self, pages: Pages, troubled: set[str]) -> None:
        values = {"$cluster": "lab", "$node": ".*", "$job": ".*"}
        queries = []
        for name, text in dashboards().items():
            for panel in json.loads(text)["panels"]:
                for target in panel.get("targets", ()):
                    query = target["expr"]
                    for variable, value in values.items():
                        query = query.replace(variable, value)
                    assert "$" not in query, (name, panel["title"])
                    queries.append(query)
        assert len(queries) > 90
        assert [query for query, seen in pages.seen(queries).items() if not seen] == []


def test_what_is_mended_is_told_no_more(pages: Pages) -> None:
    """Its certificate has renewed itself, among others."""
    gone = {
        "HostDown", "NodeDown", "ServiceNotRunning", "CertificateExpiring", "KeyDue", "DumpOld",
        "MariaDBAway", "DriftFound", "ConfigurationNotControllers", "DiskFilling", "GpuXid",
    }  # fmt: skip
    await_that(lambda: not gone & set(pages.alerts()))


def test_a_host_that_joins_is_watched_and_one_that_goes_leaves(
    lab: RunningLab, pages: Pages
) -> None:
    before = lab.settings.read_text()

    def joins(config: dict[str, Any]) -> None:
        config["hosts"]["mon"] = lab.address("mon")
        config["roles"]["login"] = "login01,mon"

    lab.boot("mon")
    lab.change(joins)
    lab.up()
    await_that(lambda: pages.targets().get("mon", {}).get("health") == "up")
    lab.settings.write_text(before)
    lab.up()
    await_that(lambda: "mon" not in pages.targets())
    lab.kill("mon")


#: A CA, and a certificate that it has signed for a client.
CLIENT = """
mkdir -p /run/site && cd /run/site
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=site -keyout ca.key -out ca.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=prometheus -keyout client.key -out client.csr
echo extendedKeyUsage=clientAuth >ext
openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -days 1 -extfile ext -out client.crt
"""
FOLDER = "/etc/prometheus"


@pytest.fixture
def mon(lab: RunningLab, pages: Pages) -> Iterator[str]:
    """A machine that is none of the cluster's."""
    before = lab.settings.read_text()
    lab.boot("mon")
    yield "mon"
    lab.settings.write_text(before)
    lab.up()
    lab.kill("mon")


def test_a_prometheus_of_the_sites_own_watches_all_hosts(lab: RunningLab, mon: str) -> None:
    lab.ssh(mon, CLIENT)
    # As the page has it.
    page = (CHECKOUT / "docs" / "monitoring.md").read_text()
    (configuration,) = re.findall(r"```yaml\n(rule_files:.*?)```", page, re.DOTALL)
    lab.set(
        monitoring={
            "mode": "exportersOnly",
            "interval": 5,
            "slurmInterval": 5,
            "clientCa": lab.ssh(mon, "cat /run/site/ca.crt").stdout,
        }
    )
    lab.up()
    assert lab.ssh("ctl", "systemctl is-active prometheus", check=False).stdout == "inactive\n"
    lab.ssh(mon, "apt-get install -y -q --no-install-recommends prometheus 2>&1")
    taken = (
        "tar -C /etc/prometheus -c slurmstack/rules slurmstack/targets slurmstack/exporter-cas.crt"
    )
    files = base64.b64decode(lab.ssh("ctl", f"{taken} | base64").stdout)
    lab.send(mon, f"tar -C {FOLDER} -x", files)
    lab.ssh(mon, f"cd /run/site && install -o prometheus client.crt client.key {FOLDER}")
    lab.send(mon, f"cat >{FOLDER}/prometheus.yml", configuration.encode())
    lab.ssh(mon, "systemctl restart prometheus")

    def asked(what: str) -> Any:
        ask = f"curl -sf 'http://127.0.0.1:9090/api/v1/{what}' || echo '{{}}'"
        return json.loads(lab.ssh(mon, ask).stdout).get("data")

    def watched() -> set[str]:
        found = asked("targets") or {"activeTargets": []}
        return {it["labels"]["instance"] for it in found["activeTargets"] if it["health"] == "up"}

    await_that(lambda: watched() == {"ctl", "login01", "cn01", "cn02"})
    await_that(lambda: bool(asked("query?query=slurm_nodes")["result"]))
    rules = [rule for group in asked("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 30
    await_that(lambda: {it["health"] for it in asked("rules")["groups"][0]["rules"]} == {"ok"})


def test_the_setting_gone_takes_everything_away(lab: RunningLab, pages: Pages, bare: str) -> None:
    lab.pulumi("preview", "--expect-no-changes")
    lab.settings.write_text(bare)
    lab.up()
    for node in ("ctl", "login01", "cn01"):
        left = lab.ssh(
            node,
            # dpkg leaves the empty folder, in which ours still was when the package went.
            "ls -d /etc/prometheus/* /var/lib/prometheus /etc/default/prometheus* "
            "/var/lib/slurmstack-metrics/* /usr/local/lib/slurmstack/*metrics* "
            "/usr/local/lib/slurmstack/slurm-exporter /etc/systemd/system/*metrics* "
            "/etc/systemd/system/*exporter* /etc/systemd/system/*grafana* /etc/grafana/slurmstack "
            "/usr/local/lib/slurmstack/grafana* 2>/dev/null; "
            "dpkg -l | grep -E '^.i.*(prom|grafana)'; "
            "ss -Hltn | grep -E ':(3000|9090|9093|9100) '; true",
        )
        assert left.stdout == ""
