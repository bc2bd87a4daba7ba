"""Tokens: where their keys lie, who gets one for how long, and how keys are changed."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.lab.conftest import RunningLab
from tests.lab.rest_client import Client, token

pytestmark = [pytest.mark.lab, pytest.mark.usefixtures("users")]

#: Where a key, or a trace of it, might be left on a node.
PLACES = "/etc /var /tmp /root /home /run /dev/shm /usr/local"


@pytest.fixture(scope="module")
def client(users: RunningLab) -> Client:
    return Client.of(users)


def jwks(lab: RunningLab) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(lab.ssh("ctl", "cat /etc/slurm/slurm.jwks").stdout)[
        "keys"
    ]
    return found


def thumbprint(key: dict[str, str]) -> str:
    """RFC 7638, 3."""
    text = json.dumps({name: key[name] for name in ("e", "kty", "n")}, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def kid(text: str) -> str:
    return str(jwt.get_unverified_header(text)["kid"])


def claims(lab: RunningLab, text: str) -> dict[str, Any]:
    """What a token says, once its signature is verified by the controller's JWKS."""
    (key,) = [key for key in jwks(lab) if key["kid"] == kid(text)]
    found: dict[str, Any] = jwt.decode(text, jwt.PyJWK(key).key, algorithms=["RS256"])
    return found


def test_the_jwks_and_the_inventory_name_the_key(lab: RunningLab) -> None:
    (key,) = jwks(lab)
    assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}
    assert key["kid"] == thumbprint(key)
    shown = json.loads(
        lab.pulumi("stack", "output", "inventory", "--json", "--show-secrets").stdout
    )
    assert shown["ctl"]["keys"]["jwt"] == key["kid"]
    assert jwt.PyJWK(key).key.key_size == 3072


def test_keys_are_closed_to_others(lab: RunningLab) -> None:
    shown = lab.ssh("ctl", "stat -c '%a %U %n' /etc/slurm/jwt /etc/slurm/jwt/a.pem").stdout
    assert shown.split("\n")[:2] == ["700 root /etc/slurm/jwt", "400 root /etc/slurm/jwt/a.pem"]
    assert lab.ssh("ctl", "stat -c '%a %U' /etc/slurm/jwt.key").stdout == "400 slurm\n"


def test_private_keys_never_leave(lab: RunningLab) -> None:
    """Neither in any place of a node but their own, nor anywhere on the operator's machine."""
    watch = "/dev/shm/seen-processes"
    lab.ssh(
        "ctl",
        f"rm -f {watch}; nohup sh -c 'while [ ! -e {watch}.end ]; do"
        f" cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ; done' >{watch} 2>/dev/null </dev/null &",
    )
    try:
        with lab.having(jwt={"keys": ["watched", "a"], "maxLifetime": "8h"}):
            token(lab, "alice")
            lab.ssh("ctl", f"touch {watch}.end")
            assert int(lab.ssh("ctl", f"stat -c %s {watch}").stdout) > 10_000
            parts = {
                "RS256": lab.ssh("ctl", "sed -n 3p /etc/slurm/jwt/watched.pem").stdout.strip(),
                "HS256": lab.ssh("ctl", "base64 -w0 /etc/slurm/jwt.key").stdout.strip(),
                "HS256 in hex": lab.ssh(
                    "ctl", "od -An -vtx1 /etc/slurm/jwt.key | tr -d ' \\n'"
                ).stdout.strip(),
                "TLS": lab.ssh("ctl", "tail -n 3 /etc/slurm/tls/cluster.pem | head -n 1").stdout,
                "CA": lab.ssh("ctl", "sed -n 2p /etc/slurm/tls/ca.key").stdout.strip(),
            }
            for what, part in parts.items():
                assert len(part.strip()) > 40, what
            homes = {
                "RS256": ("/etc/slurm/jwt/watched.pem", "sed -n 3p"),
                "TLS": ("/etc/slurm/tls/cluster.pem", "tail -n 3"),
                "CA": ("/etc/slurm/tls/ca.key", "sed -n 2p"),
            }
            for file, lines in homes.values():
                found = lab.ssh("ctl", f"{lines} {file} | head -n 1 | grep -rlaFf - {PLACES}")
                assert found.stdout.split() == [file]
            journal = lab.ssh("ctl", "journalctl --no-pager -o export", timeout=60).stdout
            state = lab.pulumi("stack", "export", "--show-secrets").stdout
            places = {"journal of ctl": journal, "state": state} | on_this_machine(lab)
            for what, part in parts.items():
                for place, text in places.items():
                    assert part.strip() not in text, f"the {what} key is in {place}"
            for node in ("cn01", "cn02"):
                names = lab.ssh(node, "find / -xdev -name '*.pem' -path '*slurm*'").stdout
                assert names == ""
    finally:
        lab.ssh("ctl", f"touch {watch}.end; rm -f {watch} {watch}.end")


def on_this_machine(lab: RunningLab) -> dict[str, str]:
    """Everything of the lab that an operator's machine holds: state, history, logs, settings."""
    files = [lab.settings]
    for folder in (lab.lab.state, lab.lab.folder / "log", lab.lab.pulumi_home):
        files += [path for path in Path(folder).rglob("*") if path.is_file()]
    return {
        str(path): path.read_text(errors="replace")
        for path in files
        if path.stat().st_size < 50_000_000
    }


def test_the_verb_issues_what_it_is_asked_for(lab: RunningLab) -> None:
    found = claims(lab, token(lab, "alice", "--lifetime", "15m"))
    assert (found["sun"], found["exp"] - found["iat"]) == ("alice", 900)
    assert abs(found["iat"] - time.time()) < 60
    default = claims(lab, token(lab, "alice"))
    assert default["exp"] - default["iat"] == 3600


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["alice", "--lifetime", "9h"], "at most 8h"),
        (["alice", "--lifetime", "0"], "at least 1s"),
        (["alice", "--lifetime", "soon"], "found soon"),
        (["nobody-of-that-name"], "ctl: token: no user nobody-of-that-name"),
        (["a;reboot"], "ctl: token: not a user name"),
        (["root"], "--privileged"),
        (["slurm"], "--privileged"),
    ],
)
def test_the_verb_refuses(lab: RunningLab, words: list[str], says: str) -> None:
    done = lab.run("slurmstack", "token", *words, "--stack", lab.name, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_the_controller_holds_the_limit_by_itself(lab: RunningLab) -> None:
    over = lab.ssh("ctl", "/usr/local/lib/slurmstack/token alice 28801", check=False)
    assert over.returncode == 1
    assert over.stdout == ""
    assert "limit of 28800 s" in over.stderr
    by_user = lab.ssh("ctl", "su alice -c 'scontrol token lifespan=28801'", check=False)
    assert "Requested time limit is invalid" in by_user.stderr
    assert "SLURM_JWT" in lab.ssh("ctl", "su alice -c 'scontrol token lifespan=28800'").stdout


def test_a_token_serves_slurms_own_commands(lab: RunningLab) -> None:
    text = token(lab, "alice")
    shown = lab.ssh("ctl", f"SLURM_JWT={text} sinfo --noheader --format %D")
    assert shown.stdout.strip() == "2"


def test_keys_are_rotated_with_overlap(lab: RunningLab, client: Client) -> None:
    old = token(lab, "alice")
    lab.ssh("ctl", "su alice -c 'cd; sbatch --job-name=long --wrap \"sleep 600\"'")
    restarts = "systemctl show -P NRestarts slurmctld"
    assert lab.ssh("ctl", restarts).stdout.strip() == "0"
    with lab.having(jwt={"keys": ["b", "a"], "maxLifetime": "8h"}):
        new = token(lab, "alice")
        assert kid(new) != kid(old)
        assert [key["kid"] for key in jwks(lab)] == [kid(new), kid(old)]
        assert client.ask(token=new)[0] == client.ask(token=old)[0] == 200
    # Back again, b is the one that is no longer named.
    assert client.ask(token=old)[0] == 200
    assert client.ask(token=new)[0] == 511
    assert lab.ssh("ctl", "ls /etc/slurm/jwt").stdout.split() == [
        "a.pem",
        "scontrol-key",
        "told",
        "trusted",
    ]
    assert "long" in lab.ssh("ctl", "squeue --noheader --format '%j %t'").stdout
    lab.ssh("ctl", "scancel --name=long")


def test_a_foreign_jwks_is_trusted_while_the_settings_say_so(
    lab: RunningLab, client: Client
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    # As many identity providers write it: no alg, and more than slurmctld reads.
    public = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {
        "kid": "idp-2026", "use": "sig", "x5t": "unused",
    }  # fmt: skip
    public.pop("key_ops", None)
    now = int(time.time())
    says = {"iat": now, "exp": now + 3600, "preferred_username": "alice"}
    foreign = jwt.encode(says, key, "RS256", headers={"kid": "idp-2026"})
    assert client.ask(token=foreign)[0] == 511
    trusting = {
        "maxLifetime": "8h",
        "userClaim": "preferred_username",
        "trustedJwks": {"idp": json.dumps({"keys": [public]})},
    }
    with lab.having(jwt=trusting):
        assert client.ask(token=foreign)[0] == 200
        assert client.ask(token=foreign, user="root")[0] == 511
        assert client.ask(token=token(lab, "alice"))[0] == 200
    assert client.ask(token=foreign)[0] == 511


def test_another_name_makes_another_scontrol_key(lab: RunningLab, client: Client) -> None:
    issue = "scontrol token username=alice lifespan=600 | cut -d= -f2"
    old = lab.ssh("ctl", issue).stdout.strip()
    assert client.ask(token=old)[0] == 200
    off = {"maxLifetime": "8h", "scontrolKey": "b", "userTokens": False}
    with lab.having(jwt=off):
        assert client.ask(token=old)[0] == 511
        assert client.ask(token=lab.ssh("ctl", issue).stdout.strip())[0] == 200
        refused = lab.ssh("ctl", "su alice -c 'scontrol token'", check=False)
        assert refused.returncode != 0


def test_a_missing_key_is_named_with_its_remedy(lab: RunningLab) -> None:
    lab.ssh(
        "ctl", "cp -p /etc/slurm/slurm.jwks /root/kept; echo '{\"keys\":[]}' >/etc/slurm/slurm.jwks"
    )
    done = lab.ssh("ctl", "/usr/local/lib/slurmstack/jwt-keys check", check=False)
    lab.ssh("ctl", "mv /root/kept /etc/slurm/slurm.jwks")
    assert done.returncode == 1
    assert "/usr/local/lib/slurmstack/jwt-keys puts it right" in done.stdout
    lab.ssh("ctl", "/usr/local/lib/slurmstack/jwt-keys check")


def test_without_tokens_nothing_is_left(lab: RunningLab, client: Client) -> None:
    before = jwks(lab)[0]["kid"]
    with lab.having(jwt=None, rest=None):
        left = lab.ssh(
            "ctl",
            "ls -d /etc/slurm/jwt* /etc/slurm/slurm.jwks /etc/slurm/tls /etc/haproxy"
            " /usr/local/lib/slurmstack/token /run/slurmrestd 2>/dev/null; id slurmrestd 2>&1",
            check=False,
        ).stdout
        assert "/" not in left, left
        assert "AuthAlt" not in lab.ssh("ctl", "cat /etc/slurm/slurm.conf").stdout
        listening = lab.ssh("ctl", "ss -Hltn").stdout
        assert ":6820" not in listening
        assert ":6821" not in listening
        done = lab.run("slurmstack", "token", "alice", "--stack", lab.name, check=False)
        assert "has no tokens" in done.stderr
        assert lab.ssh("ctl", "srun -N2 hostname").stdout.split()
    assert jwks(lab)[0]["kid"] != before
    assert Client.of(lab).ask(token=token(lab, "alice"))[0] == 200
