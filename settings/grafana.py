"""``slurmstack:monitoring.grafana``: Grafana's package, and who may see its pages."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import Field, field_validator

from settings.artifact import PackageFile
from settings.base import Model, matching
from settings.problems import refused
from settings.rest import Port

#: Grafana's package by its edition; both bring the same files and units.
PACKAGES = ("grafana", "grafana-enterprise")


class GrafanaProxy(Model):
    """The site's proxy, which has asked who somebody is (Grafana's ``auth.proxy``)."""

    #: The request's header that names the user.
    header: Annotated[str, matching(r"[A-Za-z][A-Za-z0-9-]{0,63}", "a header's name")] = (
        "X-WEBAUTH-USER"
    )
    #: Whence alone the header is believed: addresses, or networks such as 10.0.0.0/28.
    addresses: Annotated[tuple[str, ...], Field(min_length=1)]
    #: What such a user may do.
    role: Literal["Viewer", "Editor", "Admin"] = "Viewer"

    @field_validator("addresses")
    @classmethod
    def _places(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            try:
                network = ipaddress.ip_network(address)
            except ValueError:
                raise refused("addresses or networks of the proxy", repr(address)) from None
            if network.prefixlen == 0:
                raise refused("addresses or networks of the proxy", "everybody's")
        return value


class Grafana(Model):
    """Grafana on the monitoring host, with this product's dashboards."""

    #: A package file; left out, the package grafana of the nodes' own sources.
    package: PackageFile | None = None
    port: Port = 3000
    #: Left out, people log in by Grafana's own page; ``admin`` always can.
    proxy: GrafanaProxy | None = None

    @field_validator("package")
    @classmethod
    def _known(cls, value: PackageFile | None) -> PackageFile | None:
        if value is not None and value.package not in PACKAGES:
            raise refused(f"a package file of {' or '.join(PACKAGES)}", value.package)
        return value

    @property
    def package_name(self) -> str:
        return self.package.package if self.package is not None else PACKAGES[0]
