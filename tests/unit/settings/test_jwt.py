"""``slurmstack:jwt``: whom to trust, for how long, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from settings import parse
from settings.duration import seconds, written
from tests.unit.settings.test_settings import lab, mistakes

PRIVATE = rsa.generate_private_key(65537, 2048)
SHORT = rsa.generate_private_key(65537, 1024)


def public(
    kid: str | None = "one", key: rsa.RSAPrivateKey = PRIVATE, **changes: Any
) -> dict[str, Any]:
    found = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    found.pop("key_ops")
    found |= {"kid": kid, "use": "sig", "alg": "RS256"} | changes
    return {name: value for name, value in found.items() if value is not None}


def private() -> dict[str, Any]:
    return RSAAlgorithm.to_jwk(PRIVATE, as_dict=True) | {"kid": "one"}


def elliptic() -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return ECAlgorithm.to_jwk(key, as_dict=True) | {"kid": "one"}


def trusting(*keys: dict[str, Any]) -> dict[str, Any]:
    return {"jwt": {"trustedJwks": {"idp": {"keys": list(keys)}}}}


IDP = "slurmstack:jwt.trustedJwks.idp"


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        (trusting(public(), public()), f"{IDP}.keys[1].kid", "found 'one', already at"),
        (trusting(private()), f"{IDP}.keys[0]", "found the private parts d, p, q, dp, dq, qi"),
        (trusting({"kty": "oct", "k": "c2VjcmV0", "kid": "x"}), f"{IDP}.keys[0]", "part k"),
        (trusting(public(), elliptic()), f"{IDP}.keys[1]", "kty RSA, the one kind that slurmctld"),
        (trusting(public(alg="RS512")), f"{IDP}.keys[0]", "found 'RS512'"),
        (trusting(public(use="enc")), f"{IDP}.keys[0]", "leave keys for encryption out"),
        (trusting(public(kid=None)), f"{IDP}.keys[0].kid", "found nothing"),
        (trusting(public(kid='a"b')), f"{IDP}.keys[0].kid", "without quotes"),
        (trusting(public(n="!!")), f"{IDP}.keys[0].n", "expected base64url"),
        (trusting(public(key=SHORT)), f"{IDP}.keys[0]", "at least 2048 bits"),
        (trusting(), f"{IDP}.keys", "at least one key; found none"),
        ({"jwt": {"trustedJwks": {"idp": "{"}}}, IDP, "text that is not JSON"),
        ({"jwt": {"trustedJwks": {"idp": [1]}}}, IDP, "found [1]"),
        ({"jwt": {"keySize": 1024}}, "slurmstack:jwt.keySize", "2048"),
        ({"jwt": {"keys": []}}, "slurmstack:jwt.keys", "at least one key; found none"),
        ({"jwt": {"keys": ["a", "b", "a"]}}, "slurmstack:jwt.keys[2]", "a again"),
        ({"jwt": {"keys": ["../a"]}}, "slurmstack:jwt.keys[0]", "lower-case letters"),
        ({"jwt": {"maxLifetime": "soon"}}, "slurmstack:jwt.maxLifetime", "30m, 8h or 7d"),
        ({"jwt": {"maxLifetime": 0}}, "slurmstack:jwt.maxLifetime", "found 0"),
        (
            {"jwt": {"maxLifetime": "1h", "defaultLifetime": "2h"}},
            "slurmstack:jwt",
            "at most maxLifetime, 3600 s; found 7200 s",
        ),
        ({"jwt": {"userClaim": "a,b"}}, "slurmstack:jwt.userClaim", "the name of a claim"),
        (
            {"jwt": {}, "slurm": {"AuthAltTypes": "auth/jwt"}},
            "slurmstack:slurm.AuthAltTypes",
            "nothing, as slurmstack:jwt gives it",
        ),
        ({"jwt": None, "rest": {}}, "slurmstack:jwt", "which slurmstack:rest needs"),
    ],
)
def test_one_mistake(changes: dict[str, Any], path: str, says: str) -> None:
    found = mistakes(changes)
    assert says in found[path]
    assert set(found) == {path}


@pytest.mark.parametrize(
    ("key", "where", "problem"),
    [
        ([], "", "expected a key, which is an object; found []"),
        (
            {"kty": "oct", "k": "c2VjcmV0", "kid": "x"},
            "",
            "expected a public key; found the private part k",
        ),
        (
            public() | {"d": "AQ", "p": "AQ"},
            "",
            "expected a public key; found the private parts d, p",
        ),
        (
            elliptic(),
            "",
            "expected kty RSA, the one kind that slurmctld verifies; found 'EC'",
        ),
        (
            public(kty=None),
            "",
            "expected kty RSA, the one kind that slurmctld verifies; found no kty",
        ),
        (
            public(alg="PS256"),
            "",
            "expected alg RS256, the one that slurmctld verifies; found 'PS256'",
        ),
        (public(use="enc"), "", "expected use sig; leave keys for encryption out; found 'enc'"),
        (
            public(kid="a\\b"),
            ".kid",
            "expected printable ASCII without quotes and backslashes; found 'a\\\\b'",
        ),
    ],
)
def test_a_key_that_slurmctld_would_not_take_is_told(key: Any, where: str, problem: str) -> None:
    """auth_jwt.c, _verify_rs256_jwt: RS256 alone; the private part is nobody else's."""
    assert mistakes(trusting(key)) == {f"{IDP}.keys[0]{where}": problem}


@pytest.mark.parametrize("kid", ["two words", "~tilde", "a'b", "x" * 200])
def test_a_kid_may_be_any_printable_ascii(kid: str) -> None:
    setting = parse({**lab(), **trusting(public(kid))}).jwt
    assert setting is not None
    assert [key.kid for key in setting.trusted()] == [kid]


@pytest.mark.parametrize("kid", ["", 'a"b', "a\\b", "a\nb", "a\x7f", "schlüssel"])
def test_a_kid_that_is_no_printable_ascii_is_refused(kid: str) -> None:
    assert set(mistakes(trusting(public(kid)))) == {f"{IDP}.keys[0].kid"}


def test_one_kid_in_two_files() -> None:
    files = {name: {"keys": [public()]} for name in ("first", "second")}
    found = mistakes({"jwt": {"trustedJwks": files}})
    assert set(found) == {"slurmstack:jwt.trustedJwks.second.keys[0].kid"}
    assert "slurmstack:jwt.trustedJwks.first.keys[0]" in str(found)


def test_private_parts_are_not_quoted() -> None:
    said = str(mistakes(trusting(private())))
    assert private()["d"][:20] not in said
    assert private()["n"][:20] not in said


def test_a_key_without_alg_is_written_with_it() -> None:
    """slurmctld passes over keys that do not say RS256 (auth_jwt.c, _verify_rs256_jwt)."""
    file = json.dumps({"keys": [public(alg=None, use=None, x5t="unused")]})
    setting = parse({**lab(), "jwt": {"trustedJwks": {"idp": file}}}).jwt
    assert setting is not None
    (key,) = setting.trusted()
    assert key.line() == public()


def test_a_small_limit_is_the_default_too() -> None:
    setting = parse({**lab(), "jwt": {"maxLifetime": "10m"}}).jwt
    assert setting is not None
    assert setting.default_lifetime == 600


@pytest.mark.parametrize(
    ("text", "value"), [("900", 900), (900, 900), ("45s", 45), ("30m", 1800), ("7d", 604800)]
)
def test_lengths_of_time(text: str | int, value: int) -> None:
    assert seconds(text) == value
    assert seconds(written(value)) == value


@pytest.mark.parametrize("text", ["", "m", "1.5h", "-1", "1w", True, None, "1 h"])
def test_no_length_of_time(text: Any) -> None:
    with pytest.raises(ValueError, match="30m, 8h or 7d"):
        seconds(text)
