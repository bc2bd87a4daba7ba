"""People from a directory of the site's: slapd behind TLS, SSSD on real nodes, and slapd away.

Their keys are the directory's, and their homes are made at a login, on a share: a folder of this
machine in all of the lab's.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import shared_folder
from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab

NODES = ("ctl", "login01", "cn01", "cn02")
#: Of the directory's own, which only what binds may read.
PASSWORD = "bound-by: 4711 & more"
SUFFIX = "dc=example,dc=org"
READER = f"cn=reader,{SUFFIX}"
FOLDER = "/root/ldap"
#: Where homes are, and the share that has them.
HOMES, SHARE = "/srv/people", "/srv/share"
SECRET = "/etc/sssd/conf.d/slurmstack.conf"
SLAPD = f"""\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.3.6.1.4.1.24552.500.1.1.1.13 NAME 'sshPublicKey'
  EQUALITY octetStringMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )
objectclass ( 1.3.6.1.4.1.24552.500.1.1.2.0 NAME 'ldapPublicKey' AUXILIARY MAY sshPublicKey )
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile {FOLDER}/server.crt
TLSCertificateKeyFile {FOLDER}/server.key
security ssf=128
database mdb
suffix {SUFFIX}
directory {FOLDER}/data
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{READER}" read by * none
"""


def person(name: str, uid: int, key: str = "") -> str:
    of = f"objectClass: ldapPublicKey\nsshPublicKey: {key}\n" if key else ""
    return (
        f"dn: uid={name},{SUFFIX}\nobjectClass: inetOrgPerson\nobjectClass: posixAccount\n{of}"
        f"uid: {name}\ncn: {name}\nsn: {name}\nuidNumber: {uid}\ngidNumber: 7101\n"
        f"homeDirectory: {HOMES}/{name}\nloginShell: /bin/bash\n\n"
    )


def group(name: str, gid: int, members: str = "") -> str:
    of = f"memberUid: {members}\n" if members else ""
    return f"dn: cn={name},{SUFFIX}\nobjectClass: posixGroup\ncn: {name}\ngidNumber: {gid}\n{of}\n"


def entries(key: str) -> str:
    top = f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\n"
    return (
        f"{top}dc: example\no: Example\n\n"
        f"dn: {READER}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n"
        f"cn: reader\nuserPassword: {PASSWORD}\n\n"
        + person("greta", 7001, key)
        + person("hugo", 7002, key)
        + group("people", 7101)
        + group("hpc", 7100, "greta")
    )


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)


def certify(folder: Path, server: str) -> None:
    """The site's CA, another one, and the certificate of a server (``IP:…``, ``DNS:…``)."""
    new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        of = ("-keyout", f"{name}.key", "-out", f"{name}.crt", "-subj", f"/CN={name} of the test")
        openssl(folder, *new, *of)
    openssl(
        folder, *new, "-CA", "ca.crt", "-CAkey", "ca.key", "-subj", "/CN=directory",
        "-addext", f"subjectAltName={server}", "-addext", "basicConstraints=critical,CA:FALSE",
        "-keyout", "server.key", "-out", "server.crt",
    )  # fmt: skip


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory, lab: RunningLab) -> Path:
    """Certificates, and greta's key."""
    folder = tmp_path_factory.mktemp("authority")
    certify(folder, f"IP:{lab.address('login01')}")
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "greta")]
    subprocess.run(words, check=True)
    return folder


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory, lab: RunningLab) -> Iterator[None]:
    """A folder that all hosts have."""
    with shared_folder.shared(lab, NODES, tmp_path_factory.mktemp("share"), SHARE):
        yield
    for node in NODES:
        lab.ssh(node, f"rmdir {HOMES}; userdel frida")


@pytest.fixture(scope="module")
def directory(lab: RunningLab, authority: Path, share: None) -> Iterator[RunningLab]:
    """The lab with a directory on its login node, of which each host asks."""
    quiet = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y"
    lab.ssh(
        "login01",
        f"{quiet} install --no-install-recommends slapd >/dev/null 2>&1"
        f" && systemctl disable --now -q slapd && mkdir -p -m 0700 {FOLDER}/data",
    )
    texts = {name: (authority / name).read_text() for name in ("server.crt", "server.key")}
    ldif = entries((authority / "greta.pub").read_text().strip())
    for name, text in {**texts, "slapd.conf": SLAPD, "entries.ldif": ldif}.items():
        lab.send("login01", f"cat >{FOLDER}/{name}", text.encode())
    lab.ssh("login01", f"slapadd -q -f {FOLDER}/slapd.conf -l {FOLDER}/entries.ldif")
    start(lab)
    before = lab.settings.read_text()
    try:
        lab.pulumi("config", "set", "--secret", "slurmstack:directoryBindPassword", PASSWORD)
        sssd = {
            "provider": "ldap",
            "domain": "example.org",
            "servers": [f"{way}://{lab.address('login01')}" for way in ("ldaps", "ldap")],
            "ca": (authority / "ca.crt").read_text(),
            "searchBase": SUFFIX,
            "bindDn": READER,
            "entryCacheTimeout": 3,
            "access": {"groups": ["hpc"]},
            "sshKeys": True,
            "extra": {"offline_timeout": "3", "offline_timeout_random_offset": "0"},
        }

        def asks(config: dict[str, dict[str, dict[str, object]]]) -> None:
            config["directory"] = {
                "local": {"users": {"frida": {"uid": 7010}}},
                "sssd": sssd,
                "home": {"root": HOMES, "share": "people", "mkhomedir": True},
            }
            config["storage"] = {"people": {"type": "bind", "source": SHARE, "mount": HOMES}}
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


def start(lab: RunningLab, way: str = "ldaps") -> None:
    words = f"slapd -d 0 -f {FOLDER}/slapd.conf -h {way}:///"
    lab.ssh("login01", f"systemd-run -q --collect --unit=test-slapd {words}")
    port = {"ldaps": ":636 ", "ldap": ":389 "}[way]
    await_that(lambda: port in lab.ssh("login01", "ss -Hltn").stdout)


def job(lab: RunningLab) -> list[str]:
    """Who a job on both nodes is."""
    words = "timeout 120 runuser -u greta -- srun -N2 -l id -un"
    return sorted(lab.ssh("login01", f"cd / && {words}").stdout.splitlines())


def online(lab: RunningLab, node: str, domain: str = "example.org") -> bool:
    """Whether a host is with the directory, once it has asked for somebody."""
    lab.ssh(node, "getent passwd nobody-of-this-name", check=False)
    return "Online status: Online" in lab.ssh(node, f"sssctl domain-status {domain} -o").stdout


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


def test_the_access_rule_holds(directory: RunningLab, authority: Path) -> None:
    assert verdict(directory, "greta") == "Success"
    assert verdict(directory, "hugo") == "Permission denied"
    code, said = directory.login("hugo", authority / "greta", "login01")
    assert (code, "hugo" in said) == (255, False)


def verdict(lab: RunningLab, user: str) -> str:
    done = lab.ssh("cn01", f"sssctl user-checks -a acct -s sshd {user} 2>&1", check=False)
    (line,) = (it for it in done.stdout.splitlines() if it.startswith("pam_acct_mgmt: "))
    return line.removeprefix("pam_acct_mgmt: ")


def test_a_login_by_the_directorys_key_has_a_home_on_the_share(
    directory: RunningLab, authority: Path
) -> None:
    lab, home = directory, f"{HOMES}/greta"
    owner = f"stat -c '%U:%G %a' {home}"
    assert lab.ssh("cn02", owner, check=False).stdout == ""
    # Neither the lab's key nor another one is hers.
    assert lab.login("greta", authority / "nobody", "login01")[0] == 255
    assert lab.login("greta", authority / "greta", "login01", "pwd; touch here") == (0, f"{home}\n")
    assert lab.ssh("cn02", owner).stdout == "greta:people 700\n"
    assert lab.login("greta", authority / "greta", "cn01", "ls") == (0, "here\n")
    # One of the settings' own people has it from the controller.
    assert lab.ssh("cn02", f"stat -c '%U:%G %a' {HOMES}/frida").stdout == "frida:frida 700\n"


def test_jobs_start_while_the_directory_is_away(directory: RunningLab, authority: Path) -> None:
    lab = directory
    assert job(lab) == ["0: greta", "1: greta"]
    lab.ssh("login01", "systemctl kill -s KILL test-slapd")
    try:
        for node in NODES:
            await_that(lambda node=node: not online(lab, node))  # type: ignore[misc]
        assert job(lab) == ["0: greta", "1: greta"]
        assert lab.ssh("cn02", "id -u greta").stdout == "7001\n"
        assert lab.login("greta", authority / "greta", "login01") == (0, "greta\n")
        later = f"{FOLDER}/later.ldif"
        lab.send("login01", f"cat >{later}", person("ivo", 7003).encode())
        lab.ssh("login01", f"slapadd -q -f {FOLDER}/slapd.conf -l {later}")
    finally:
        start(lab)
    await_that(lambda: lab.ssh("cn02", "id -u ivo", check=False).stdout == "7003\n")
    assert job(lab) == ["0: greta", "1: greta"]


@pytest.mark.parametrize("way", ["ldap", "ldaps"])
def test_a_server_by_another_authority_is_not_believed(
    directory: RunningLab, authority: Path, way: str
) -> None:
    """By StartTLS and by TLS from the first byte: slapd answers nobody without."""
    lab, file = directory, "/etc/slurmstack/directory-ca.pem"
    lab.ssh("login01", "systemctl stop test-slapd")
    start(lab, way)
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
