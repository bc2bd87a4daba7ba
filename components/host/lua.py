"""The reader of files in Lua: modules, job_submit.lua and cli_filter.lua."""

from __future__ import annotations

from remote.bundle import Validate
from templates.rendering import render


def lua_is_read(files: tuple[str, ...]) -> Validate:
    """What is no Lua is not put in place, where the host has a compiler that says so."""
    return Validate("lua", render("host/lua-is-read.sh", files=files), on=files)
