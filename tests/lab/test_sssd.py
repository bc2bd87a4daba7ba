"""People from a directory of the site's: slapd behind TLS, SSSD on real nodes, and slapd away."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab

NODES = ("ctl", "login01", "cn01", "cn02")
#: Of the directory's own, which only what binds may read.
PASSWORD = "bound-by: 4711 & more"
SUFFIX = "dc=example,dc=org"
READER = f"cn=reader,{SUFFIX}"
FOLDER = "/root/ldap"
SECRET = "/etc/sssd/conf.d/slurmstack.conf"
SLAPD = f"""\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile {FOLDER}/server.crt
TLSCertificateKeyFile {FOLDER}/server.key
database mdb
suffix {SUFFIX}
directory {FOLDER}/data
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{READER}" read by * none
"""


def person(name: str, uid: int) -> str:
    return (
        f"dn: uid={name},{SUFFIX}\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\n"
        f"uid: {name}\ncn: {name}\nsn: {name}\nuidNumber: {uid}\ngidNumber: 7101\n"
        f"homeDirectory: /home/{name}\nloginShell: /bin/bash\n\n"
    )


def group(name: str, gid: int, members: str = "") -> str:
    of = f"memberUid: {members}\n" if members else ""
    return f"dn: cn={name},{SUFFIX}\nobjectClass: posixGroup\ncn: {name}\ngidNumber: {gid}\n{of}\n"


def entries() -> str:
    top = f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\n"
    return (
        f"{top}dc: example\no: Example\n\n"
        f"dn: {READER}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n"
        f"cn: reader\nuserPassword: {PASSWORD}\n\n"
        + person("greta", 7001)
        + person("hugo", 7002)
        + group("people", 7101)
        + group("hpc", 7100, "greta")
    )


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, lab: RunningLab) -> Path:
    """The site's CA, another one, and the server's certificate."""
    folder = tmp_path_factory.mktemp("authority")
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        files = (
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.crt",
            "-subj",
            f"/CN={name} of the test",
        )
        openssl(folder, *new, *files)
    openssl(
        folder, *new, "-CA", "ca.crt", "-CAkey", "ca.key", "-subj", "/CN=directory",
        "-addext", f"subjectAltName=IP:{lab.address('login01')}",
        "-addext", "basicConstraints=critical,CA:FALSE",
        "-keyout", "server.key", "-out", "server.crt",
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def directory(lab: RunningLab, authority: Path) -> Iterator[RunningLab]:
    """The lab with a directory on its login node, of which each host asks."""
    quiet = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y"
    lab.ssh(
        "login01",
        f"{quiet} install --no-install-recommends slapd >/dev/null 2>&1"
        f" && systemctl disable --now -q slapd && mkdir -p -m 0700 {FOLDER}/data",
    )
    texts = {name: (authority / name).read_text() for name in ("server.crt", "server.key")}
    for name, text in {**texts, "slapd.conf": SLAPD, "entries.ldif": entries()}.items():
        lab.send("login01", f"cat >{FOLDER}/{name}", text.encode())
    lab.ssh("login01", f"slapadd -q -f {FOLDER}/slapd.conf -l {FOLDER}/entries.ldif")
    start(lab)
    before = lab.settings.read_text()
    try:
        lab.pulumi("config", "set", "--secret", "slurmstack:directoryBindPassword", PASSWORD)
        sssd = {
            "provider": "ldap",
            "domain": "example.org",
            "servers": [f"ldaps://{lab.address('login01')}"],
            "ca": (authority / "ca.crt").read_text(),
            "searchBase": SUFFIX,
            "bindDn": READER,
            "entryCacheTimeout": 3,
            "access": {"groups": ["hpc"]},
            "extra": {"offline_timeout": "3", "offline_timeout_random_offset": "0"},
        }

        def asks(config: dict[str, dict[str, dict[str, object]]]) -> None:
            config["directory"] = {"sssd": sssd}
            config["accounting"]["users"]["greta"] = {"Accounts": {"physics": {}}}

        lab.change(asks)
        lab.up()
        yield lab
    finally:
        lab.settings.write_text(before)
        lab.up()
        lab.ssh(
            "login01",
            f"systemctl stop test-slapd; {quiet} purge --autoremove slapd >/dev/null 2>&1;"
            f" rm -rf {FOLDER} /var/lib/ldap",
        )
    for node in NODES:
        left = "ls -d /etc/sssd/* /etc/slurmstack/directory-ca.pem; grep -lw sss /etc/nsswitch.conf"
        assert lab.ssh(node, f"({left}) 2>/dev/null", check=False).stdout == ""
        assert lab.ssh(node, "grep -l pam_sss /etc/pam.d/*", check=False).stdout == ""
        assert holders(lab, node) == []


def start(lab: RunningLab) -> None:
    words = f"slapd -d 0 -f {FOLDER}/slapd.conf -h ldaps:///"
    lab.ssh("login01", f"systemd-run -q --collect --unit=test-slapd {words}")
    await_that(lambda: ":636 " in lab.ssh("login01", "ss -Hltn").stdout)


def job(lab: RunningLab) -> list[str]:
    """Who a job on both nodes is."""
    words = "timeout 120 runuser -u greta -- srun -N2 -l id -un"
    return sorted(lab.ssh("login01", f"cd / && {words}").stdout.splitlines())


def online(lab: RunningLab, node: str) -> bool:
    """Whether a host is with the directory, once it has asked for somebody."""
    lab.ssh(node, "getent passwd nobody-of-this-name", check=False)
    return "Online status: Online" in lab.ssh(node, "sssctl domain-status example.org -o").stdout


def test_people_of_the_directory_run_jobs(directory: RunningLab) -> None:
    lab = directory
    for node in NODES:
        told = lab.ssh(node, "id greta").stdout
        assert told == "uid=7001(greta) gid=7101(people) groups=7101(people),7100(hpc)\n"
    assert job(lab) == ["0: greta", "1: greta"]
    held = lab.ssh("ctl", "sacctmgr -nP show assoc user=greta format=account").stdout
    assert held == "physics\n"
    assert "unchanged" in lab.pulumi("up", "--yes", "--expect-no-changes").stdout


def holders(lab: RunningLab, node: str) -> list[str]:
    """Files that hold the password."""
    words = f"grep -rlF {shlex.quote(PASSWORD)} /etc /run /usr/local /var"
    return sorted(lab.ssh(node, words, check=False).stdout.split())


def test_the_password_is_roots_alone(directory: RunningLab) -> None:
    lab = directory
    for node in NODES:
        places = holders(lab, node)
        # SSSD keeps what it has read of its configuration in a database.
        assert places == [SECRET, "/var/lib/sss/db/config.ldb"]
        for path in (*places, "/etc/sssd/sssd.conf"):
            assert lab.ssh(node, f"stat -c '%a %U' {path}").stdout == "600 root\n"


def test_the_access_rule_holds(directory: RunningLab) -> None:
    def verdict(user: str) -> str:
        done = directory.ssh("cn01", f"sssctl user-checks -a acct -s sshd {user} 2>&1", check=False)
        (line,) = (it for it in done.stdout.splitlines() if it.startswith("pam_acct_mgmt: "))
        return line.removeprefix("pam_acct_mgmt: ")

    assert verdict("greta") == "Success"
    assert verdict("hugo") == "Permission denied"


def test_jobs_start_while_the_directory_is_away(directory: RunningLab) -> None:
    lab = directory
    assert job(lab) == ["0: greta", "1: greta"]
    lab.ssh("login01", "systemctl kill -s KILL test-slapd")
    try:
        for node in NODES:
            await_that(lambda node=node: not online(lab, node))  # type: ignore[misc]
        assert job(lab) == ["0: greta", "1: greta"]
        assert lab.ssh("cn02", "id -u greta").stdout == "7001\n"
        later = f"{FOLDER}/later.ldif"
        lab.send("login01", f"cat >{later}", person("ivo", 7003).encode())
        lab.ssh("login01", f"slapadd -q -f {FOLDER}/slapd.conf -l {later}")
    finally:
        start(lab)
    await_that(lambda: lab.ssh("cn02", "id -u ivo", check=False).stdout == "7003\n")
    assert job(lab) == ["0: greta", "1: greta"]


def test_a_server_by_another_authority_is_not_believed(
    directory: RunningLab, authority: Path
) -> None:
    lab, file = directory, "/etc/slurmstack/directory-ca.pem"
    await_that(lambda: online(lab, "cn01"))
    before = lab.send("cn01", f"cat {file}", b"")
    try:
        lab.send("cn01", f"cat >{file}", (authority / "other.crt").read_bytes())
        lab.ssh("cn01", "systemctl restart sssd")
        assert not online(lab, "cn01")
        assert lab.ssh("cn01", "getent passwd hugo2", check=False).stdout == ""
    finally:
        lab.send("cn01", f"cat >{file}", before)
        lab.ssh("cn01", "systemctl restart sssd")
    await_that(lambda: online(lab, "cn01"))
