"""sssd.conf from the settings, whose directory it may be, and where its password is."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

import remote
from components.directory.sssd import CONF, SECRET, secret_bundle, sssd_bundle
from remote.bundle import File, Guard
from settings import Settings, parse
from settings.problems import SettingsError
from tests.unit.components.test_cluster import bare

APPLIER = Path(remote.__file__).with_name("applier")
CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
LDAP = {
    "provider": "ldap",
    "domain": "example.org",
    "servers": ["ldaps://ldap1.example.org", "ldaps://ldap2.example.org:1636"],
    "ca": CA,
    "searchBase": "dc=example,dc=org",
}
BIND = {"bindDn": "cn=reader,dc=example,dc=org"}
AD = {"provider": "ad", "domain": "ad.example.org", "servers": ["dc1.ad.example.org"], "ca": CA}
IPA = {"provider": "ipa", "domain": "example.org", "servers": ["ipa1.example.org"], "ca": CA}


def settings(sssd: dict[str, Any], **changes: Any) -> Settings:
    return parse({**bare(), "directory": {"sssd": sssd}, **changes})


def conf(sssd: dict[str, Any], **changes: Any) -> configparser.SectionProxy:
    """The domain's section, as it is read."""
    parts = sssd_bundle("cn01", settings(sssd, **changes)).parts
    (file,) = (it for it in parts if isinstance(it, File) and it.path == CONF)
    assert file.mode == "0600"
    read = configparser.ConfigParser(interpolation=None)
    read.read_string(str(file.content))
    assert read["sssd"]["domains"] == sssd["domain"]
    return read[f"domain/{sssd['domain']}"]


@pytest.mark.parametrize("sssd", [LDAP, AD, IPA], ids=["ldap", "ad", "ipa"])
def test_servers_show_certificates_and_people_are_remembered(sssd: dict[str, Any]) -> None:
    domain = conf(sssd)
    assert domain["id_provider"] == sssd["provider"]
    assert domain["ldap_tls_reqcert"] == "demand"
    assert domain["ldap_tls_cacert"].endswith(".pem")
    assert domain["cache_credentials"] == "true"
    assert domain["entry_cache_timeout"] == "5400"


@pytest.mark.parametrize("sssd", [LDAP, AD, IPA], ids=["ldap", "ad", "ipa"])
def test_no_key_sounds_like_that_of_a_secret(sssd: dict[str, Any]) -> None:
    """Its value would be withheld from all that the applier says: ``ad`` is part of most words."""
    (withholds,) = re.findall(r"key ~ /(.+?)/", (APPLIER / "start.sh").read_text())
    domain = conf({**sssd, "access": {"groups": ["hpc"]}, "sshKeys": True})
    assert [key for key in domain if re.search(withholds, key)] == []


def test_ldap_speaks_tls_in_either_way() -> None:
    assert "ldap_id_use_start_tls" not in conf(LDAP)
    plain = {**LDAP, "servers": ["ldap://ldap1.example.org"]}
    assert conf(plain)["ldap_id_use_start_tls"] == "true"
    assert conf(LDAP)["ldap_uri"] == "ldaps://ldap1.example.org, ldaps://ldap2.example.org:1636"


@pytest.mark.parametrize(
    ("sssd", "access", "wanted"),
    [
        (LDAP, None, {"access_provider": "permit"}),
        (IPA, None, {"access_provider": "ipa"}),
        (AD, None, {"access_provider": "ad"}),
        (
            LDAP,
            {"groups": ["hpc", "ops"], "users": ["anna"]},
            {
                "access_provider": "simple",
                "simple_allow_groups": "hpc, ops",
                "simple_allow_users": "anna",
            },
        ),
        (
            LDAP,
            {"filter": "(host=cluster)"},
            {
                "access_provider": "ldap",
                "ldap_access_order": "filter",
                "ldap_access_filter": "(host=cluster)",
            },
        ),
        (
            AD,
            {"filter": "(memberOf=cn=hpc)"},
            {"access_provider": "ad", "ad_access_filter": "(memberOf=cn=hpc)"},
        ),
    ],
)
def test_who_may_log_in(
    sssd: dict[str, Any], access: dict[str, Any] | None, wanted: dict[str, str]
) -> None:
    domain = conf({**sssd, "access": access} if access else sssd)
    about = re.compile("access|simple_allow")
    assert {name: value for name, value in domain.items() if about.search(name)} == wanted


def guarded(sssd: dict[str, Any], name: str, place: tuple[str, Path]) -> str:
    """What a guard says, with a file of the host's elsewhere."""
    parts = sssd_bundle("cn01", settings(sssd)).parts
    (guard,) = (it for it in parts if isinstance(it, Guard) and it.name == name)
    text = guard.script.replace(place[0], str(place[1]))
    return subprocess.run(["sh"], input=text, capture_output=True, text=True, check=False).stdout


def keytab(realm: str) -> bytes:
    """Its beginning: length of the entry, components, realm and first component, each counted."""
    counted = b"".join(len(it).to_bytes(2, "big") + it for it in (realm.encode(), b"host", b"cn01"))
    return b"\5\2" + (len(counted) + 2).to_bytes(4, "big") + b"\0\2" + counted


@pytest.mark.parametrize(
    ("realm", "joined"),
    [
        (None, False),
        ("AD.EXAMPLE.ORG", True),
        ("EXAMPLE.ORG", False),
        ("X.AD.EXAMPLE.ORG", False),
        ("AD.EXAMPLE.ORG.EU", False),
    ],
)
def test_a_host_is_joined_by_a_key_of_its_realm(
    realm: str | None, joined: bool, tmp_path: Path
) -> None:
    place = tmp_path / "keytab"
    if realm is not None:
        place.write_bytes(keytab(realm))
    said = guarded(AD, "joined", ("/etc/krb5.keytab", place))
    assert (said == "") == joined
    told = "adcli join --domain-controller=dc1.ad.example.org ad.example.org here (package adcli)"
    assert (told in said) != joined


def test_a_realm_of_ten_characters_is_one(tmp_path: Path) -> None:
    """Its length is a line feed."""
    place = tmp_path / "keytab"
    place.write_bytes(keytab("AD.SITE.EU"))
    assert guarded({**AD, "domain": "ad.site.eu"}, "joined", ("/etc/krb5.keytab", place)) == ""


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, False),
        ({"entryCacheTimeout": 7, "access": {"groups": ["hpc"]}}, False),
        ({"mapIds": True}, True),
        ({"extra": {"ldap_idmap_range_min": "300000"}}, True),
        ({"extra": {"ldap_user_uid_number": "employeeNumber"}}, True),
    ],
)
def test_other_numbers_than_those_that_are_remembered_are_refused(
    change: dict[str, Any], refused: bool, tmp_path: Path
) -> None:
    place = tmp_path / "sssd.conf"
    assert guarded({**AD, **change}, "numbers-stay", (CONF, place)) == ""
    (file,) = (
        it
        for it in sssd_bundle("cn01", settings(AD)).parts
        if isinstance(it, File) and it.path == CONF
    )
    place.write_text(str(file.content))
    said = guarded({**AD, **change}, "numbers-stay", (CONF, place))
    assert ("by ldap_id_mapping = false here" in said) == refused


@pytest.mark.parametrize(("sssd", "bound"), [(LDAP, False), (AD, True)], ids=["ldap", "ad"])
def test_a_ticket_is_bound_to_tls(sssd: dict[str, Any], bound: bool) -> None:
    files = [it for it in sssd_bundle("cn01", settings(sssd)).parts if isinstance(it, File)]
    (unit,) = (
        str(it.content) for it in files if it.path.endswith("sssd.service.d/slurmstack.conf")
    )
    assert ("\nEnvironment=LDAPSASL_CBINDING=tls-endpoint\n" in unit) == bound


def test_the_password_is_in_a_secret_bundle_alone() -> None:
    it = settings({**LDAP, **BIND}, directoryBindPassword="of-the-reader")
    password = it.directory_bind_password
    assert password is not None
    assert "of-the-reader" not in sssd_bundle("cn01", it).render()
    parts = secret_bundle("cn01", it, password.get_secret_value()).parts
    (file,) = (one for one in parts if isinstance(one, File))
    assert (file.path, file.mode, file.owner) == (SECRET, "0600", "root:root")
    assert str(file.content).splitlines()[-1] == "ldap_default_authtok = of-the-reader"


@pytest.mark.parametrize(
    ("sssd", "word"),
    [
        ({**LDAP, "servers": ["ldap1.example.org"]}, "servers with ldaps://"),
        ({**AD, "servers": ["ldaps://dc1"]}, "servers by name"),
        ({**LDAP, "searchBase": None}, "searchBase for ldap"),
        ({**IPA, **BIND}, "neither bindDn nor"),
        ({**LDAP, "ca": "none"}, "certificates in PEM"),
        ({**LDAP, "access": {}}, "users and groups, or a filter"),
        ({**LDAP, "access": {"users": ["a"], "filter": "(b=c)"}}, "users and groups, or a filter"),
        ({**LDAP, "access": {"groups": ["a, b"]}}, "without commas"),
        ({**IPA, "access": {"filter": "(a=b)"}}, "for ipa"),
        ({**LDAP, "extra": {"ldap_tls_reqcert": "never"}}, "always demanded"),
        ({**LDAP, "extra": {"ldap_default_authtok": "hunter2"}}, "directoryBindPassword"),
        ({**LDAP, "extra": {"ldap_user_name": "a\nid_provider = files"}}, "one line of text"),
        ({**LDAP, **BIND}, "the password of"),
    ],
)
def test_what_is_no_directory_is_refused(sssd: dict[str, Any], word: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings({name: value for name, value in sssd.items() if value is not None})
    (problem,) = caught.value.problems
    assert word in problem.expected
    assert "hunter2" not in str(problem)


def test_a_password_needs_somebody_who_binds() -> None:
    with pytest.raises(SettingsError, match=r"bindDn with it; found none") as caught:
        settings(LDAP, directoryBindPassword="of-the-reader")
    assert "of-the-reader" not in str(caught.value)


def test_homes_are_made_at_a_login_of_a_directorys_people_alone() -> None:
    with pytest.raises(SettingsError, match=r"home\.mkhomedir: .*directory\.sssd with it"):
        parse({**bare(), "directory": {"home": {"mkhomedir": True}}})
