"""People of an Active Directory: a domain controller of Samba on a machine of its own, hosts joined
as `up` says, the controller killed while jobs start.

Where ``SLURMSTACK_TEST_ACTIVE_DIRECTORY`` is set: Samba is 60 MB to fetch, and each host is joined.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import RunningLab, await_that
from tests.lab.test_sssd import NODES, certify, job, verdict

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not os.environ.get("SLURMSTACK_TEST_ACTIVE_DIRECTORY"),
        reason="SLURMSTACK_TEST_ACTIVE_DIRECTORY: a domain controller of Samba, minutes",
    ),
]

DOMAIN, SERVER = "ad.example.org", "dc1.ad.example.org"
#: Of the administrator and of people.
PASSWORD = "Of-the-domain-4711"
SAMBA = f"""\
set -e
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
apt-get -qq update
apt-get -qq -y install --no-install-recommends samba-ad-dc samba-ad-provision winbind
rm /usr/sbin/policy-rc.d /etc/samba/smb.conf
samba-tool domain provision --realm={DOMAIN.upper()} --domain=AD --host-name=dc1 --host-ip=$1 \\
  --use-rfc2307 --adminpass={PASSWORD} --option="tls cafile=/root/tls/ca.crt" \\
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


def described(lab: RunningLab, authority: Path) -> dict[str, Any]:
    return {
        "provider": "ad",
        "domain": DOMAIN,
        "servers": [SERVER],
        "ca": (authority / "ca.crt").read_text(),
        "entryCacheTimeout": 3,
        "access": {"groups": ["hpc"]},
        "extra": {"offline_timeout": "3", "offline_timeout_random_offset": "0"},
    }


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    certify(folder, f"DNS:{SERVER}")
    return folder


@pytest.fixture(scope="module")
def controller(lab: RunningLab, authority: Path) -> Iterator[RunningLab]:
    """The lab with a domain controller, whose name all hosts know; no host is joined."""
    lab.boot("mon")
    try:
        lab.ssh("mon", "mkdir -m 0700 /root/tls")
        for name in ("ca.crt", "server.crt", "server.key"):
            text = (authority / name).read_bytes()
            lab.send("mon", f"umask 077; cat >/root/tls/{name}", text)
        lab.send("mon", f"sh -s {lab.address('mon')}", SAMBA.encode())
        # Its address has one name, as a name server tells it.
        for node in (*NODES, "mon"):
            lab.ssh(node, f"sed -i 's/ mon$/ {SERVER} mon/' /etc/hosts")
        yield lab
    finally:
        for node in NODES:
            lab.ssh(node, f"sed -i 's/ {SERVER} mon$/ mon/' /etc/hosts")
        lab_command(lab.name, "node-down", "mon")
