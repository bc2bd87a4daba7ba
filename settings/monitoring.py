"""``slurmstack:monitoring``: exporters, Prometheus, Alertmanager, and who is told of what.

``slurmstack:monitoringPassword`` and ``slurmstack:monitoringSecrets`` are its secrets. Names of
Prometheus's and Alertmanager's own things are theirs (Prometheus 2.53, Alertmanager 0.28).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from cryptography import x509
from pydantic import Field, SecretStr, field_validator, model_validator

from settings.base import Model, matching
from settings.duration import Duration
from settings.grafana import Grafana
from settings.problems import refused
from settings.rest import Port, ServerName

#: bcrypt takes no more than 72 bytes.
_PASSWORD = re.compile(r"[!-~]{12,72}")
_SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")

Url = Annotated[
    str, matching(r"https?://[^\s\"'\\]+", "a URL such as https://metrics.example/api/v1/write")
]
SecretName = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}", "the name of a secret, such as slack"),
]
Line = Annotated[str, matching(r"[^\x00-\x1f\x7f]+", "one line of text")]
Size = Annotated[str, matching(r"[1-9][0-9]*(MB|GB|TB)", "a size such as 512MB or 20GB")]
Label = Annotated[str, matching(r"[a-zA-Z_][a-zA-Z0-9_]*", "the name of a label, such as severity")]


class RemoteWrite(Model):
    """Where Prometheus sends all it has, too."""

    url: Url
    username: Line | None = None
    password_secret: SecretName | None = None

    @model_validator(mode="after")
    def _both(self) -> RemoteWrite:
        if (self.username is None) != (self.password_secret is None):
            raise refused("username and passwordSecret, or neither", "one of them")
        return self


class Mail(Model):
    """How mail leaves: the site's relay."""

    #: host:port
    smarthost: Annotated[
        str, matching(r"[A-Za-z0-9.-]+:[0-9]{1,5}", "a relay such as smtp.example.org:587")
    ]
    sender: Line
    username: Line | None = None
    password_secret: SecretName | None = None
    require_tls: bool = True


class Slack(Model):
    channel: Line
    #: The webhook's URL, which is a secret.
    url_secret: SecretName


class PagerDuty(Model):
    #: The integration key of Events API v2.
    routing_key_secret: SecretName


class Webhook(Model):
    """One of the two: a URL that anybody may read, or the name of a secret that holds one."""

    url: Url | None = None
    url_secret: SecretName | None = None

    @model_validator(mode="after")
    def _one(self) -> Webhook:
        if (self.url is None) == (self.url_secret is None):
            raise refused("url or urlSecret, one of them", "both" if self.url else "neither")
        return self


class Receiver(Model):
    """Who is told, in one way or several."""

    mail: tuple[Line, ...] = ()
    slack: Slack | None = None
    pager_duty: PagerDuty | None = None
    webhook: Webhook | None = None


class Route(Model):
    """Alerts with all of these labels go to this receiver; the first route that fits counts."""

    receiver: str
    labels: dict[Label, Line] = Field(min_length=1)


class Monitoring(Model):
    """``slurmstack:monitoring``; present, the cluster is watched."""

    #: Without servers of its own: exporters on every host; rules and targets as files.
    mode: Literal["full", "exportersOnly"] = "full"
    #: Seconds between two looks of Prometheus at its targets.
    interval: Annotated[Duration, Field(ge=5, le=300)] = 15
    #: Seconds between two looks of the exporter at slurmctld, however many ask.
    slurm_interval: Annotated[Duration, Field(ge=5, le=600)] = 30
    #: How long what was seen is kept, and how much of it at most: what comes first.
    retention: Annotated[Duration, Field(ge=3600)] = 15 * 86400
    retention_size: Size = "20GB"
    port: Port = 9090
    alertmanager_port: Port = 9093
    exporter_port: Port = 9100
    #: The name by which people reach the pages; left out, the host's address.
    server_name: ServerName | None = None
    #: Who may see the pages.
    user: Annotated[str, matching(r"[A-Za-z0-9_.-]{1,64}", "a name such as slurmstack")] = (
        "slurmstack"
    )
    #: Days that the hosts' certificates are good, and are left when they are renewed.
    certificate_days: Annotated[int, Field(ge=2, le=3650)] = 90
    renew_days: Annotated[int, Field(ge=1, le=3649)] = 30
    #: PEM: whose clients the exporters answer, where the Prometheus is the site's.
    client_ca: str | None = None
    remote_write: tuple[RemoteWrite, ...] = ()
    #: Where dcgm-exporter listens on nodes with GPUs; left out, it is not asked.
    gpu_exporter_port: Port | None = None
    grafana: Grafana | None = None
    #: Age at which a key counts as due to be changed.
    key_max_age: Duration = 365 * 86400
    mail: Mail | None = None
    receivers: dict[Annotated[str, matching(r"[A-Za-z0-9_-]{1,63}", "a name")], Receiver] = Field(
        default_factory=dict
    )
    #: Of the receivers, who gets what no route takes; left out, the first.
    default_receiver: str | None = None
    routes: tuple[Route, ...] = ()
    #: Seconds that an alert waits for others of its kind, and until it is told again.
    group_wait: Duration = 30
    repeat_interval: Duration = 4 * 3600

    @field_validator("client_ca")
    @classmethod
    def _pem(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if "PRIVATE KEY" in value:
            raise refused("certificates alone", "a private key, too")
        try:
            x509.load_pem_x509_certificates(value.encode())
        except ValueError:
            raise refused("the certificate of a CA in PEM", "text that is none") from None
        return value.strip() + "\n"

    @model_validator(mode="after")
    def _ports(self) -> Monitoring:
        ports = [self.port, self.alertmanager_port, self.exporter_port]
        ports += [self.grafana.port] if self.grafana is not None else []
        if len({*ports}) < len(ports):
            raise refused("a port for each", "the same port twice")
        if self.renew_days >= self.certificate_days:
            raise refused(
                f"renewDays below certificateDays, {self.certificate_days}", str(self.renew_days)
            )
        return self

    @property
    def told(self) -> str | None:
        """The receiver of what no route takes."""
        return self.default_receiver or next(iter(self.receivers), None)

    def secrets(self) -> Iterator[tuple[str, str]]:
        """Where a secret is named, below the setting, and its name."""
        for index, write in enumerate(self.remote_write):
            if write.password_secret:
                yield f"remoteWrite[{index}].passwordSecret", write.password_secret
        if self.mail is not None and self.mail.password_secret:
            yield "mail.passwordSecret", self.mail.password_secret
        for name, receiver in self.receivers.items():
            where = f"receivers.{name}"
            if receiver.slack is not None:
                yield f"{where}.slack.urlSecret", receiver.slack.url_secret
            if receiver.pager_duty is not None:
                key = receiver.pager_duty.routing_key_secret
                yield f"{where}.pagerDuty.routingKeySecret", key
            if receiver.webhook is not None and receiver.webhook.url_secret:
                yield f"{where}.webhook.urlSecret", receiver.webhook.url_secret


def read_password(text: str) -> SecretStr:
    """The pages' password, or who may push: what bcrypt hashes.

    Raises:
        ValueError: what was found instead; the text is not quoted.
    """
    if not _PASSWORD.fullmatch(text):
        raise ValueError(f"{len(text)} characters that are none")
    return SecretStr(text)


def read_secret(name: str, text: object) -> SecretStr:
    """One of the secrets.

    Raises:
        ValueError: what was found instead; the text is not quoted.
    """
    if not _SECRET_NAME.fullmatch(name):
        raise ValueError("a name of other characters than letters, digits, _ and -")
    if not isinstance(text, str | int) or not re.fullmatch(r"[!-~]{1,4096}", str(text)):
        raise ValueError("text that is none")
    return SecretStr(str(text))
