"""The passphrase secrets provider, compatible with Pulumi's (pkg/secrets/passphrase).

State ``v1:SALT:v1:NONCE:CIPHERTEXT`` holds the salt and the word "pulumi" encrypted, so that a
wrong passphrase is noticed. Key: PBKDF2-SHA256, 1,000,000 rounds, 32 bytes. Cipher: AES-256-GCM.
"""

from __future__ import annotations

import hashlib
import os
import sys
from base64 import b64decode, b64encode
from functools import cached_property
from pathlib import Path
from threading import Thread

from engine.errors import CommandError

ROUNDS = 1_000_000


class IncorrectPassphrase(CommandError):
    def __init__(self) -> None:
        super().__init__("incorrect passphrase")


class PassphraseCrypter:
    """Encrypts and decrypts a stack's secrets. The key is derived (about half a second) at the
    first use; a wrong passphrase raises IncorrectPassphrase then, or at :meth:`check`."""

    def __init__(self, state: str, phrase: str | None = None) -> None:
        version, _, rest = state.partition(":")
        salt, _, proof = rest.partition(":")
        if version != "v1" or not proof:
            raise CommandError("malformed encryptionsalt: expected v1:SALT:v1:NONCE:CIPHERTEXT")
        self.state = state
        self._salt, self._proof, self._phrase = salt, proof, phrase
        self._deriving: Thread | None = None

    @classmethod
    def new(cls, phrase: str | None = None) -> PassphraseCrypter:
        """A crypter with a fresh salt."""
        salt = b64encode(os.urandom(8)).decode()
        phrase = read_passphrase("Enter your passphrase to protect") if phrase is None else phrase
        fresh = cls(f"v1:{salt}:-", phrase)
        fresh._proof = fresh.encrypt("pulumi", unchecked=True)
        fresh.state = f"v1:{salt}:{fresh._proof}"
        return fresh

    def start(self) -> None:
        """Ask for the passphrase if need be, and derive the key while other work goes on."""
        if self._phrase is None:
            self._phrase = read_passphrase("Enter your passphrase to unlock")
        self._deriving = Thread(target=lambda: self._key)
        self._deriving.start()

    @cached_property
    def _key(self) -> bytes:
        if self._phrase is None:
            self._phrase = read_passphrase("Enter your passphrase to unlock")
        salt = b64decode(self._salt)
        return hashlib.pbkdf2_hmac("sha256", self._phrase.encode(), salt, ROUNDS, 32)

    @cached_property
    def _checked(self) -> bool:
        if self._deriving:
            self._deriving.join()
        if self._open(self._proof) != "pulumi":
            raise IncorrectPassphrase
        return True

    def check(self) -> PassphraseCrypter:
        """Raise IncorrectPassphrase now rather than at the first secret."""
        assert self._checked
        return self

    def _open(self, ciphertext: str) -> str:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            _, nonce, data = ciphertext.split(":")
            return AESGCM(self._key).decrypt(b64decode(nonce), b64decode(data), None).decode()
        except (InvalidTag, ValueError):
            raise IncorrectPassphrase from None

    def decrypt(self, ciphertext: str) -> str:
        assert self._checked
        return self._open(ciphertext)

    def encrypt(self, plaintext: str, unchecked: bool = False) -> str:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        assert unchecked or self._checked
        nonce = os.urandom(12)
        data = AESGCM(self._key).encrypt(nonce, plaintext.encode("utf-8", "surrogatepass"), None)
        return f"v1:{b64encode(nonce).decode()}:{b64encode(data).decode()}"


def read_passphrase(prompt: str) -> str:
    """From PULUMI_CONFIG_PASSPHRASE, the file PULUMI_CONFIG_PASSPHRASE_FILE, or the terminal."""
    phrase = os.environ.get("PULUMI_CONFIG_PASSPHRASE")
    if phrase is not None:
        return phrase
    file = os.environ.get("PULUMI_CONFIG_PASSPHRASE_FILE")
    if file:
        try:
            return Path(file).read_text().strip()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CommandError(
                f"unable to read PULUMI_CONFIG_PASSPHRASE_FILE: open {file}: {reason}"
            ) from error
    if os.environ.get("PULUMI_AUTOMATION_API") or not sys.stdin.isatty():
        raise CommandError(
            "passphrase must be set with PULUMI_CONFIG_PASSPHRASE or "
            "PULUMI_CONFIG_PASSPHRASE_FILE environment variables"
        )
    from getpass import getpass

    return getpass(f"{prompt} config/secrets\n    (set PULUMI_CONFIG_PASSPHRASE to remember): ")
