"""JwtKeyPair: keys that sign tokens, made on the controller, and the JWKS that slurmctld trusts."""

from __future__ import annotations

import json
from typing import Any

from components.assembly import Assembly
from components.bundle_resource import HostRole
from components.guards import guards
from components.guards.upgrades import before_upgrade
from components.keys import munge_key
from components.packages import package_repository
from components.packages.slurm_packages import slurm_packages
from remote.bundle import Bundle, Check, Command, Directory, File, Package
from settings import Settings
from settings.jwt import Jwt
from templates.rendering import render

ROLE = "jwt"
#: Private halves, root's alone.
FOLDER = "/etc/slurm/jwt"
JWKS = "/etc/slurm/slurm.jwks"
#: The key of `scontrol token`, the SlurmUser's alone.
HS256 = "/etc/slurm/jwt.key"
#: Makes and checks the keys, on the controller.
KEYS = "/usr/local/lib/slurmstack/jwt-keys"
#: Issues a token, on the controller.
TOKEN = "/usr/local/lib/slurmstack/token"


class JwtKeyPair(HostRole):
    """RS256 key pairs and the HS256 key. Private halves never leave the controller: what it
    answers are key ids and public halves."""

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        if assembly.settings.jwt is not None:
            roles = (munge_key.ROLE, guards.ROLE, *package_repository.ROLES)
            needs = assembly.on(assembly.controller, *roles)
            cls("jwt-key-pair", assembly, jwt_bundle(assembly.settings), needs)


def jwt_bundle(settings: Settings) -> Bundle:
    """What the controller gets: scripts and the public keys of others. No secret is in it."""
    setting = settings.jwt or Jwt()
    trusted = f"{FOLDER}/trusted"
    values: dict[str, Any] = {"setting": setting, "folder": FOLDER, "jwks": JWKS, "hs256": HS256}
    return Bundle(
        settings.roles.controller,
        ROLE,
        [
            Package("openssl"),
            *slurm_packages(settings, "jwt"),
            *before_upgrade(settings),
            Directory("/etc/slurm"),
            Directory(FOLDER, mode="0700"),
            File(trusted, trusted_lines(setting)),
            File(KEYS, render("keys/jwt-keys.sh", **values), mode="0755"),
            File(TOKEN, render("keys/token.sh", **values), mode="0755"),
            Command(
                "jwt-keys",
                f"exec {KEYS}\n",
                on=(KEYS, trusted),
                probe=f"exec {KEYS} check\n",
                restarts=("slurmdbd.service",),
                reloads=("slurmctld.service",),
            ),
            Command("forget", render("keys/forget-jwt-keys.sh", **values), when="remove"),
            Check("jwt-keys", f"exec {KEYS} check\n", timeout=20),
        ],
    )


def trusted_lines(setting: Jwt) -> str:
    """Foreign keys, one a line, as the JWKS has them."""
    lines = (json.dumps(key.line(), separators=(",", ":")) for key in setting.trusted())
    return "".join(f"{line}\n" for line in lines)


def auth_alt(settings: Settings) -> dict[str, str | list[str]]:
    """AuthAltTypes and AuthAltParameters of slurm.conf(5) and slurmdbd.conf(5); nothing where the
    stack has no tokens."""
    setting = settings.jwt
    if setting is None:
        return {}
    # jwks= alone would turn the HS256 key off (slurm.conf(5)).
    parameters = [
        f"jwks={JWKS}",
        f"jwt_key={HS256}",
        f"max_token_lifespan={setting.max_lifetime}",
    ]
    if not setting.user_tokens:
        parameters.append("disable_token_creation")
    if setting.user_claim is not None:
        parameters.append(f"userclaimfield={setting.user_claim}")
    return {"AuthAltTypes": "auth/jwt", "AuthAltParameters": parameters}
