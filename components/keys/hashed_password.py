"""A password of which a host holds the bcrypt hash: made once, or given as a stack's secret."""

from __future__ import annotations

import bcrypt
import pulumi
import pulumi_random as random
from pydantic import SecretStr

#: bcrypt's own alphabet, without what would be half a character at the end of a salt.
_SALT_LENGTH = 21


def password_and_salt(
    name: str, given: SecretStr | None, parent: pulumi.Resource
) -> tuple[pulumi.Output[str], pulumi.Output[str]]:
    """A password, and a salt for it that stays the same from run to run.

    Args:
        name: of the resources, before ``-password`` and ``-salt``.
        given: the stack's own, in place of the one of 32 letters and digits that is made.
        parent: the component that they belong to.
    """
    options = pulumi.ResourceOptions(parent=parent)
    salt = random.RandomPassword(
        f"{name}-salt", length=_SALT_LENGTH, special=False, opts=options
    ).result
    if given is not None:
        return pulumi.Output.secret(given.get_secret_value()), salt
    made = random.RandomPassword(f"{name}-password", length=32, special=False, opts=options)
    return made.result, salt


def hashed(password: str, salt: str) -> str:
    """The password's hash, as htpasswd(5) has it.

    Args:
        password: in clear text, of at most 72 bytes.
        salt: 21 letters and digits.
    """
    # The last character of a salt holds two bits; the full stop is none set.
    return bcrypt.hashpw(password.encode(), f"$2b$10${salt}.".encode()).decode()
