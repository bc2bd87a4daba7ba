"""People of an Active Directory: a domain controller of Samba on a machine of its own, hosts joined
as `up` says, the controller killed while jobs start.

Where ``SLURMSTACK_TEST_ACTIVE_DIRECTORY`` is set: Samba is 60 MB to fetch, and each host is joined.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import RunningLab, await_that, lab_command
from tests.lab.test_sssd import NODES, certify, job, online, verdict

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not os.environ.get("SLURMSTACK_TEST_ACTIVE_DIRECTORY"),
        reason="SLURMSTACK_TEST_ACTIVE_DIRECTORY: a domain controller of Samba, minutes",
    ),
]

DOMAIN, SERVER = "ad.example.org", "dc1.ad.example.org"
JOIN = f"adcli join --domain-controller={SERVER} {DOMAIN}"
#: Of the administrator and of people.
PASSWORD = "Of-the-domain-4711"
SAMBA = f"""\
set -e
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
apt-get -qq update
apt-get -qq -y install --no-install-recommends samba-ad-dc samba-ad-provision winbind >/dev/null
rm /usr/sbin/policy-rc.d /etc/samba/smb.conf
systemctl unmask samba-ad-dc
samba-tool domain provision --realm={DOMAIN.upper()} --domain=AD --host-name=dc1 --host-ip=$1 \\
  --use-rfc2307 --adminpass='{PASSWORD}' --option="tls cafile=/root/tls/ca.crt" \\
  --option="tls certfile=/root/tls/server.crt" --option="tls keyfile=/root/tls/server.key"
samba-tool group add people --gid-number=7101 --nis-domain=ad
samba-tool group add hpc --gid-number=7100 --nis-domain=ad
for of in greta:7001 hugo:7002; do
  samba-tool user create ${{of%:*}} {PASSWORD} --uid=${{of%:*}} --uid-number=${{of#*:}} \\
    --gid-number=7101 --unix-home=/home/${{of%:*}} --login-shell=/bin/bash
done
samba-tool user create ivo {PASSWORD}
samba-tool group addmembers hpc greta
systemctl enable --now samba-ad-dc
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    certify(folder, f"DNS:{SERVER}")
    return folder


@pytest.fixture(scope="module")
def controller(lab: RunningLab, authority: Path) -> Iterator[RunningLab]:
    """The lab with a domain controller, which is every host's name server; no host is joined."""
    lab_command(lab.name, "node-up", "mon")
    kept = "/etc/hosts /etc/resolv.conf"
    try:
        lab.ssh("mon", "mkdir -m 0700 /root/tls")
        for name in ("ca.crt", "server.crt", "server.key"):
            text = (authority / name).read_bytes()
            lab.send("mon", f"umask 077; cat >/root/tls/{name}", text)
        lab.send("mon", f"sh -s {lab.address('mon')}", SAMBA.encode())
        served = f"nameserver {lab.address('mon')}"
        for node in NODES:
            # An address has one name, by which Kerberos knows a server.
            words = f"sed -i 's/ mon$/ {SERVER} mon/' /etc/hosts; echo {served} >/etc/resolv.conf"
            lab.ssh(node, f"tar -cPf /root/names.tar {kept}; {words}")
        yield lab
    finally:
        for node in NODES:
            lab.ssh(node, "tar -xPf /root/names.tar; rm /root/names.tar", check=False)
        lab.kill("mon")


@pytest.fixture(scope="module")
def refused(controller: RunningLab, authority: Path) -> Iterator[str]:
    """What `up` says of hosts that are not joined; in the end no host knows the directory."""
    lab, before = controller, controller.settings.read_text()
    sssd = {
        "provider": "ad",
        "domain": DOMAIN,
        "servers": [SERVER],
        "ca": (authority / "ca.crt").read_text(),
        "entryCacheTimeout": 3,
        "access": {"groups": ["hpc"]},
        "extra": {"offline_timeout": "3", "offline_timeout_random_offset": "0"},
    }

    def asks(config: dict[str, Any]) -> None:
        config["directory"] = {"sssd": sssd}
        config["accounting"]["users"]["greta"] = {"Accounts": {"physics": {}}}

    try:
        lab.change(asks)
        yield lab.up(check=False)
    finally:
        lab.settings.write_text(before)
        lab.up()
    for node in NODES:
        left = "ls -d /etc/sssd/* /var/lib/sss/db/*; grep -lw sss /etc/nsswitch.conf"
        assert lab.ssh(node, f"({left}) 2>/dev/null", check=False).stdout == ""
        lab.ssh(node, "rm /etc/krb5.keytab")


def domain(lab: RunningLab, command: str) -> None:
    """What its administrator does there."""
    lab.ssh("mon", f"samba-tool {command}")


def join(lab: RunningLab, node: str) -> None:
    """As a refusal says."""
    lab.send(node, f"{JOIN} --stdin-password", PASSWORD.encode())


@pytest.fixture(scope="module")
def joined(controller: RunningLab, refused: str) -> RunningLab:
    """Deployed on hosts that were joined."""
    lab = controller
    assert f"{JOIN} here (package adcli), by an administrator" in refused
    quiet = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends"
    for node in NODES:
        lab.ssh(node, f"{quiet} adcli >/dev/null 2>&1")
        join(lab, node)
    lab.up()
    return lab


def test_hosts_that_are_not_joined_are_refused_with_the_command(
    controller: RunningLab, refused: str
) -> None:
    lab = controller
    for node in NODES:
        assert f"{node}: guard joined: refused (exit 1): this host is not joined" in refused
        assert lab.ssh(node, "ls -d /etc/sssd", check=False).stdout == ""
    # A keytab of another realm, whose name ends alike, is none.
    other = r"printf '\0\0\0\040\0\1\0\017X%s\0\4host'"
    lab.ssh("cn02", f"{other} {DOMAIN.upper()} >/etc/krb5.keytab")
    try:
        assert "cn02: guard joined: refused (exit 1): this host is not joined" in lab.up(
            check=False
        )
    finally:
        lab.ssh("cn02", "rm /etc/krb5.keytab")


def numbers(lab: RunningLab) -> set[str]:
    """Who greta is, by host."""
    return {lab.ssh(node, "id greta").stdout for node in NODES}


def test_people_have_the_directorys_numbers_everywhere_and_run_jobs(joined: RunningLab) -> None:
    lab = joined
    assert numbers(lab) == {"uid=7001(greta) gid=7101(people) groups=7101(people),7100(hpc)\n"}
    # Who has no number there is nobody here.
    assert lab.ssh("cn01", "getent passwd ivo", check=False).stdout == ""
    assert job(lab) == ["0: greta", "1: greta"]
    assert "unchanged" in lab.pulumi("up", "--yes", "--expect-no-changes").stdout


def test_the_access_rule_holds_and_a_filter_asks_who_is_locked(joined: RunningLab) -> None:
    lab = joined
    assert (verdict(lab, "greta"), verdict(lab, "hugo")) == ("Success", "Permission denied")
    base = ",".join(f"DC={it}" for it in DOMAIN.split("."))

    def filtered(config: dict[str, Any]) -> None:
        config["directory"]["sssd"]["access"] = {"filter": f"(memberOf=CN=hpc,CN=Users,{base})"}

    before = lab.settings.read_text()
    try:
        lab.change(filtered)
        lab.up()
        # Group policies are read by SMB, too.
        await_that(lambda: verdict(lab, "greta") == "Success")
        assert verdict(lab, "hugo") == "Permission denied"
        domain(lab, "user disable greta")
        await_that(lambda: verdict(lab, "greta") == "Permission denied")
    finally:
        domain(lab, "user enable greta")
        lab.settings.write_text(before)
        lab.up()


def test_jobs_start_while_the_controller_is_away(joined: RunningLab) -> None:
    lab = joined
    assert len(numbers(lab)) == 1
    assert job(lab) == ["0: greta", "1: greta"]
    lab.kill("mon")
    try:
        for node in NODES:
            await_that(lambda node=node: not online(lab, node, DOMAIN))  # type: ignore[misc]
        assert job(lab) == ["0: greta", "1: greta"]
        assert len(numbers(lab)) == 1
    finally:
        lab.boot("mon")
    domain(lab, f"user create karl {PASSWORD} --uid=karl --uid-number=7003 --gid-number=7101")
    await_that(
        lambda: {lab.ssh(it, "id -u karl", check=False).stdout for it in NODES} == {"7003\n"}
    )


def test_other_numbers_are_refused_until_what_was_remembered_is_gone(joined: RunningLab) -> None:
    lab, before = joined, joined.settings.read_text()

    def mapped(config: dict[str, Any]) -> None:
        config["directory"]["sssd"]["mapIds"] = True

    try:
        lab.change(mapped)
        said = lab.up(check=False)
        for node in NODES:
            assert f"{node}: guard numbers-stay: refused" in said
        assert "(hpc)" in numbers(lab).pop()
        lab.settings.write_text(before)
        lab.set(directory=None)
        lab.up()
        lab.settings.write_text(before)
        lab.change(mapped)
        lab.up()
        (told,) = numbers(lab)
        made = r"uid=\d{6,}\(greta\) gid=\d{6,}\(domain users\) groups=\d{6,}\(.*\d{6,}\(hpc\).*\n"
        assert re.fullmatch(made, told)
        assert lab.ssh("cn01", "getent passwd ivo").stdout
        lab.set(directory=None)
        lab.up()
    finally:
        lab.settings.write_text(before)
        lab.up()
    assert "uid=7001(greta)" in numbers(lab).pop()


def test_what_is_wrong_with_the_directory_is_told(joined: RunningLab, authority: Path) -> None:
    lab, before = joined, joined.settings.read_text()

    def believes(config: dict[str, Any]) -> None:
        config["directory"]["sssd"]["ca"] = (authority / "other.crt").read_text()

    def elsewhere(config: dict[str, Any]) -> None:
        config["directory"]["sssd"]["servers"] = [f"dc7.{DOMAIN}"]

    try:
        for how, words in (
            (believes, "certificate verify failed"),
            (elsewhere, f"Failed to resolve server 'dc7.{DOMAIN}'"),
        ):
            lab.change(how)
            said = lab.up(check=False)
            assert f"the directory {DOMAIN} does not answer: " in said, said
            assert words in said, said
            lab.settings.write_text(before)
        lab.up()
        domain(lab, "computer delete CN02")
        lab.ssh("cn02", "rm /var/lib/sss/db/ccache_*; systemctl restart sssd")
        lab.change(lambda config: config["directory"]["sssd"].update(entryCacheTimeout=4))
        assert "Client 'CN02$@AD.EXAMPLE.ORG' not found in Kerberos database" in lab.up(check=False)
    finally:
        lab.settings.write_text(before)
        join(lab, "cn02")
        lab.up()
