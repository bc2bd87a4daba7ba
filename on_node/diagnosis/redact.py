"""Secrets are left out of all that is kept or shown: what looks like one becomes ``[left out]``."""

from __future__ import annotations

import re

OUT = "[left out]"

#: Names of variables and options whose value is a secret.
_NAME = (
    r"[A-Za-z0-9_.-]*(?:secret|token|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|"
    r"private[_-]?key|credential|auth[_-]?key|session[_-]?key|_pat|_key)[A-Za-z0-9_.-]*"
)
_PATTERNS = (
    # NAME=value, "name": "value", --name value; a number is a count of tokens, not a secret.
    (
        re.compile(
            rf"""(?ix)(\b{_NAME}["']?\s*[=:]\s*|--{_NAME}\s+)(?!\d+(?:\.\d+)?\b|None\b|\[left)"""
            r"""("[^"]*"|'[^']*'|[^\s,;"']+)"""
        ),
        rf"\1{OUT}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {OUT}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)?"), OUT),
    (
        re.compile(r"\b(?:hf|ghp|gho|ghs|glpat|github_pat|nvapi|xox[abp])[_-][A-Za-z0-9_-]{10,}"),
        OUT,
    ),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"), OUT),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}"), OUT),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://[^\s:/@]*):[^\s@/]+@"), rf"\1:{OUT}@"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*"), OUT),
    # The inside of a key or certificate: a line of nothing but base64.
    (re.compile(r"^[A-Za-z0-9+/=]{60,}$"), OUT),
)


_BARE = _PATTERNS[-1][0]
_HINTS = (
    "secret", "token", "passw", "passphrase", "key", "credential", "_pat", "bearer", "basic", "eyj",
    "hf_", "hf-", "ghp", "gho", "ghs", "glpat", "github_pat", "nvapi", "xox", "sk-", "akia", "asia",
    "://", "-----begin",
)  # fmt: skip


def redacted(text: str) -> str:
    """A line without what looks like a secret."""
    lower = text.lower()
    # Most lines have none of these.
    if not any(word in lower for word in _HINTS) and not _BARE.match(text):
        return text
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text
