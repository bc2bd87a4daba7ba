"""DirectoryClient: SSSD, by which a host knows the people of the site's directory.

The packages enter SSSD into nsswitch.conf and PAM themselves. What was asked is remembered on the
host, so that jobs go on and begin while the directory is away.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import pulumi

from components.assembly import Assembly
from components.bundle_resource import deploy
from components.directory.login import keys_read
from components.host import host_baseline
from remote.bundle import (
    Bundle,
    Check,
    Command,
    Directory,
    File,
    Guard,
    Package,
    Part,
    Unit,
    Validate,
)
from settings import Settings
from settings.directory import Directory as DirectorySettings
from settings.sssd import Access, Sssd
from templates.rendering import render

ROLE = "sssd"
SECRET_ROLE = "sssd-secret"
CONF = "/etc/sssd/sssd.conf"
SECRET = "/etc/sssd/conf.d/slurmstack.conf"
CA = "/etc/slurmstack/directory-ca.pem"
UNIT_CONF = "/etc/systemd/system/sssd.service.d/slurmstack.conf"
SSHD_CONF = "/etc/ssh/sshd_config.d/slurmstack-directory.conf"
#: Of sssd.conf(5), as they begin: where people's numbers come from.
_NUMBERS = (
    "ldap_id_mapping",
    "ldap_idmap_",
    "ldap_user_uid_number",
    "ldap_user_gid_number",
    "ldap_group_gid_number",
)
_COMMAND = "/usr/bin/sss_ssh_authorizedkeys %u"


class DirectoryClient(pulumi.ComponentResource):
    """SSSD of one host, and the password that it binds with."""

    def __init__(self, name: str, assembly: Assembly) -> None:
        super().__init__("slurmstack:components:DirectoryClient", name, None, assembly.options)
        settings = assembly.settings
        needs = assembly.on(name, host_baseline.ROLE)
        password = settings.directory_bind_password
        if password is not None:
            bundle = secret_bundle(name, settings, password.get_secret_value())
            shut = deploy(assembly, name, bundle, SECRET_ROLE, self, needs, secret=True)
            needs = [*needs, shut.resource]
        deploy(assembly, name, sssd_bundle(name, settings), ROLE, self, needs)
        self.register_outputs({})

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        directory = assembly.settings.directory
        if directory is not None and directory.sssd is not None:
            for name in assembly.hosts:
                cls(name, assembly)


def _sssd(settings: Settings) -> tuple[DirectorySettings, Sssd]:
    directory = settings.directory
    assert directory is not None
    assert directory.sssd is not None
    return directory, directory.sssd


def _packages(sssd: Sssd) -> list[Part]:
    names = (f"sssd-{sssd.provider}", "libnss-sss", "libpam-sss", "sssd-tools", "sssd-dbus")
    # With adcli SSSD renews a host's own key of Active Directory.
    further = ("adcli",) if sssd.provider == "ad" else ()
    return [Package(name) for name in (*names, *further)]


def secret_bundle(node: str, settings: Settings, password: str) -> Bundle:
    """The password, root's alone, beside a configuration that anybody may compare."""
    _, sssd = _sssd(settings)
    text = f"[domain/{sssd.domain}]\nldap_default_authtok = {password}\n"
    taken_up = "! systemctl is-active -q sssd || systemctl restart sssd\n"
    return Bundle(
        node,
        SECRET_ROLE,
        [
            # All at once: one of them has the folder.
            *_packages(sssd),
            File(SECRET, text, mode="0600"),
            Command("sssd-told", taken_up, on=(SECRET,), restarts=("sssd.service",), timeout=90),
        ],
    )


def sssd_bundle(node: str, settings: Settings) -> Bundle:
    """What every host gets; none of it is secret."""
    directory, sssd = _sssd(settings)
    conf = render("directory/sssd.conf", sssd=sssd, options=options(directory))
    parts: list[Part] = [
        Guard("sssd-is-ours", render("directory/sssd-is-ours.sh", conf=CONF)),
        *_joined(sssd),
        _numbers_stay(directory, sssd.domain),
        *_packages(sssd),
        Directory("/etc/slurmstack"),
        File(CA, sssd.ca),
        File(CONF, conf, mode="0600"),
        Directory(str(PurePosixPath(UNIT_CONF).parent)),
        File(
            UNIT_CONF,
            render(
                "directory/sssd.service.conf",
                files=[CONF, SECRET],
                bound=sssd.provider == "ad",
            ),
        ),
        Validate("sssd-reads-it", render("directory/sssd-is-read.sh", conf=CONF), on=(CONF,)),
        Command(
            "forget-directory",
            render("directory/forget-directory.sh", domain=sssd.domain),
            when="remove",
            timeout=120,
        ),
        Unit("sssd.service", restart_on=(CONF, CA, UNIT_CONF, f"package:sssd-{sssd.provider}")),
        Check("directory-answers", render("directory/directory-answers.sh", domain=sssd.domain)),
    ]
    if sssd.ssh_keys:
        parts += _keys(node, settings)
    if directory.home.mkhomedir:
        parts += _mkhomedir()
    return Bundle(node, ROLE, parts)


def options(directory: DirectorySettings) -> dict[str, str]:
    """The domain's section of sssd.conf(5)."""
    sssd = directory.sssd
    assert sssd is not None
    values: dict[str, str | None] = {
        "id_provider": sssd.provider,
        # Of changes of passwords, too. A key that sounds like that of a password would have the
        # applier withhold each line with the provider's name.
        "auth_provider": sssd.provider,
        **_access(sssd.provider, sssd.access),
        "cache_credentials": "true",
        "entry_cache_timeout": str(sssd.entry_cache_timeout),
        "enumerate": "false",
        "fallback_homedir": f"{directory.home.root}/%u",
        "default_shell": "/bin/bash",
        # Of what is not by a ticket; it says so of every server.
        "ldap_tls_reqcert": "demand",
        "ldap_tls_cacert": CA,
        **_OF_KIND[sssd.provider](sssd),
        **dict(sorted(sssd.extra.items())),
    }
    return {name: value for name, value in values.items() if value is not None}


def _access(provider: str, access: Access | None) -> dict[str, str | None]:
    if access is None:
        # FreeIPA's own rules, Active Directory's own locks; LDAP has neither.
        return {"access_provider": "permit" if provider == "ldap" else provider}
    if access.filter is not None:
        key = "ad_access_filter" if provider == "ad" else "ldap_access_filter"
        order = "filter" if provider == "ldap" else None
        return {"access_provider": provider, "ldap_access_order": order, key: access.filter}
    return {
        "access_provider": "simple",
        "simple_allow_users": ", ".join(access.users) or None,
        "simple_allow_groups": ", ".join(access.groups) or None,
    }


def _ldap(sssd: Sssd) -> dict[str, str | None]:
    return {
        "ldap_uri": ", ".join(sssd.servers),
        "ldap_search_base": sssd.search_base,
        "ldap_default_bind_dn": sssd.bind_dn,
        "ldap_schema": sssd.schema_,
        # ldaps:// is TLS from its first byte.
        "ldap_id_use_start_tls": None
        if all(uri.startswith("ldaps:") for uri in sssd.servers)
        else "true",
    }


def _ipa(sssd: Sssd) -> dict[str, str | None]:
    return {"ipa_domain": sssd.domain, "ipa_server": ", ".join(sssd.servers)}


def _ad(sssd: Sssd) -> dict[str, str | None]:
    return {
        "ad_domain": sssd.domain,
        "ad_server": ", ".join(sssd.servers),
        "krb5_realm": sssd.domain.upper(),
        "ad_use_ldaps": "true",
        # Names of hosts are the site's.
        "dyndns_update": "false",
        "ldap_id_mapping": "true" if sssd.map_ids else "false",
        "use_fully_qualified_names": "false",
    }


_OF_KIND = {"ldap": _ldap, "ipa": _ipa, "ad": _ad}


def _joined(sssd: Sssd) -> list[Part]:
    """FreeIPA and Active Directory know hosts, too: joining needs an administrator of theirs."""
    if sssd.provider == "ldap":
        return []
    script = render("directory/joined.sh", sssd=sssd)
    return [Guard("joined", script)]


def _numbers_stay(directory: DirectorySettings, domain: str) -> Guard:
    given = options(directory).items()
    ways = sorted(f"{name} = {value}" for name, value in given if name.startswith(_NUMBERS))
    script = render(
        "directory/numbers-stay.sh", conf=CONF, domain=domain, names=_NUMBERS, ways=ways
    )
    return Guard("numbers-stay", script)


def _keys(node: str, settings: Settings) -> list[Part]:
    return [
        *keys_read(node, settings, "authorizedkeyscommand", "none", _COMMAND, SSHD_CONF),
        Directory(str(PurePosixPath(SSHD_CONF).parent)),
        File(SSHD_CONF, render("directory/sshd-directory.conf", command=_COMMAND)),
        Unit("ssh.service", enabled=None, running=None, reload_on=(SSHD_CONF,)),
    ]


def _mkhomedir() -> list[Part]:
    """The distribution's profile; one that was on before stays on."""
    on, made = "grep -q pam_mkhomedir /etc/pam.d/common-session", "/var/lib/slurmstack-mkhomedir"
    enable = f"{on} || {{ touch {made} && pam-auth-update --enable mkhomedir && {on}; }}\n"
    disable = f"[ ! -e {made} ] || {{ pam-auth-update --package --remove mkhomedir; rm {made}; }}\n"
    return [
        Command("mkhomedir", enable, probe=f"{on}\n", timeout=60),
        Command("no-mkhomedir", disable, when="remove", timeout=60),
    ]
