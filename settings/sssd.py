"""People from a directory of the site's: ``slurmstack:directory.sssd``.

Its password is ``slurmstack:directoryBindPassword``, a secret. Options of SSSD are called as
sssd.conf(5), sssd-ldap(5), sssd-ipa(5) and sssd-ad(5) call them.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from settings.base import Model, certificates, matching
from settings.problems import refused

#: What is said elsewhere, so that it is said once, and what would let TLS go.
_ELSEWHERE = {
    "id_provider": "provider",
    "access_provider": "access",
    "ldap_uri": "servers",
    "ipa_server": "servers",
    "ad_server": "servers",
    "ldap_search_base": "searchBase",
    "ldap_default_bind_dn": "bindDn",
    "ldap_default_authtok": "slurmstack:directoryBindPassword",
    "ldap_default_authtok_type": "slurmstack:directoryBindPassword",
    "ldap_schema": "schema",
    "ldap_tls_reqcert": "nothing: certificates are always demanded",
    "ldap_tls_cacert": "ca",
    "ldap_tls_cacertdir": "ca",
    "ldap_id_use_start_tls": "servers, by ldap:// or ldaps://",
    "ldap_auth_disable_tls_never_use_in_production": "nothing: a password needs TLS",
    "ldap_id_mapping": "mapIds",
    "cache_credentials": "nothing: they are always cached",
    "entry_cache_timeout": "entryCacheTimeout",
}
_OPTION = re.compile(r"[a-z][a-z0-9_]*")

Dn = Annotated[
    str,
    matching(
        r"[A-Za-z][A-Za-z0-9.-]*=[^\x00-\x1f\x7f]+",
        "a distinguished name such as dc=example,dc=org",
    ),
]
Filter = Annotated[
    str, matching(r"\([^\x00-\x1f\x7f]+\)", "a filter in brackets, such as (memberOf=cn=hpc,…)")
]
#: sssd.conf separates them by commas.
OfDirectory = Annotated[
    str,
    matching(r"[^\x00-\x1f\x7f,\s][^\x00-\x1f\x7f,]*", "a name of the directory without commas"),
]
_HOST = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"


class Access(Model):
    """``access``: who of the directory may log in."""

    users: tuple[OfDirectory, ...] = ()
    groups: tuple[OfDirectory, ...] = ()
    #: In place of users and groups, of LDAP or Active Directory.
    filter: Filter | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Access:
        if bool(self.users or self.groups) == (self.filter is not None):
            raise refused("users and groups, or a filter", "both" if self.filter else "neither")
        return self


class Sssd(Model):
    """``sssd``; present, each host asks a directory who people are, and remembers it."""

    provider: Literal["ldap", "ipa", "ad"]
    #: Also what SSSD calls it.
    domain: Annotated[str, matching(_HOST, "a domain such as example.org")]
    #: LDAP: ldaps:// or ldap:// (StartTLS) and a host; FreeIPA and Active Directory: hosts.
    servers: Annotated[
        tuple[
            Annotated[
                str,
                matching(
                    rf"(ldaps?://)?{_HOST}(:[0-9]{{1,5}})?",
                    "a server such as ldaps://ldap1.example.org, or ipa1.example.org",
                ),
            ],
            ...,
        ],
        Field(min_length=1),
    ]
    #: Certificates in PEM by which the servers are known.
    ca: Annotated[str, AfterValidator(certificates)]
    search_base: Dn | None = None
    bind_dn: Dn | None = None
    schema_: Literal["rfc2307", "rfc2307bis"] = Field("rfc2307", alias="schema")
    #: Numbers made from Active Directory's own ids, in place of those that it has for POSIX.
    map_ids: bool = False
    #: Seconds for which what was asked need not be asked again.
    entry_cache_timeout: Annotated[int, Field(ge=1, le=2592000)] = 5400
    #: Days for which a password that was right once is taken while no server answers; 0: always.
    offline_credentials_expiration: Annotated[int, Field(ge=0, le=365)] = 7
    access: Access | None = None
    #: Keys of people from the directory (sshPublicKey).
    ssh_keys: bool = False
    #: Any other option of the domain.
    extra: dict[str, str] = Field(default_factory=dict)

    @field_validator("extra")
    @classmethod
    def _options(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _OPTION.fullmatch(name):
                raise ValueError("options of SSSD such as ldap_user_name")
            if name in _ELSEWHERE:
                raise refused(f"no {name}, which is given by {_ELSEWHERE[name]}", name)
            if not text.strip() or re.search(r"[\x00-\x1f\x7f]", text):
                raise ValueError(f"one line of text for {name}")
        return value

    @model_validator(mode="after")
    def _of_its_kind(self) -> Sssd:
        uris = [server for server in self.servers if "://" in server]
        if self.provider == "ldap":
            if len(uris) < len(self.servers):
                raise refused("servers with ldaps:// or ldap:// for ldap", ", ".join(self.servers))
            if self.search_base is None:
                raise refused("searchBase for ldap", "none")
            return self
        if uris:
            raise refused(f"servers by name for {self.provider}", ", ".join(uris))
        if self.bind_dn is not None or self.search_base is not None:
            found = "bindDn" if self.bind_dn else "searchBase"
            raise refused(f"neither bindDn nor searchBase for {self.provider}", found)
        if self.provider == "ipa" and self.access is not None and self.access.filter:
            raise refused("users and groups, or the rules of FreeIPA, for ipa", "a filter")
        return self


def read_bind_password(text: str) -> SecretStr:
    """The password of ``bindDn``.

    Raises:
        ValueError: with what is wrong, never with the text itself.
    """
    if not re.fullmatch(r"[!-~]([ -~]{0,254}[!-~])?", text):
        raise ValueError(f"{len(text)} characters that are none")
    return SecretStr(text)
