"""The plugins that slurm.conf names, and whether their files are there before it does."""

from __future__ import annotations

from collections.abc import Iterable

from components.packages.slurm_packages import BASE
from remote.bundle import Validate
from settings.parameters import SLURM_CONF, find
from settings.slurm_conf import Line
from settings.slurm_value import plain
from templates.rendering import render

#: Names for the absence of a plugin, and for another one: Slurm asks for no file of these.
_NO_FILE = {"none", "default", "openmpi"}
#: Kinds of plugins that a later release calls otherwise, and finds by both names.
_RENAMED = {
    "job_container": "namespace",  # release notes of 25.11; src/interfaces/namespace.c
}


def plugin_files(lines: Iterable[Line]) -> dict[str, list[tuple[str, ...]]]:
    """Parameter → the files that it makes Slurm load, without their folder, each by the names that
    it has in one release or another."""
    loaded: dict[str, list[tuple[str, ...]]] = {}
    for line in lines:
        parameter = find(SLURM_CONF, line.name)
        if parameter is None or parameter.kind not in ("plugin", "plugins"):
            continue
        kinds = [kind for kind in (parameter.of[0], _RENAMED.get(parameter.of[0])) if kind]
        names = [word.rpartition("/")[2] for word in plain(line.value).split(",")]
        files = [
            tuple(f"{kind}_{name}.so" for kind in kinds)
            for name in names
            if name.lower() not in _NO_FILE
        ]
        if files:
            loaded[line.name] = files
    return loaded


def plugins_are_there(lines: Iterable[Line], slurm_conf: str) -> Validate:
    """What reads slurm.conf (the file's path) for plugins that no package has brought: some are
    in packages of their own, some are the site's, and a daemon that lacks one does not start."""
    lines = list(lines)
    folder = next((plain(line.value) for line in lines if line.name == "PluginDir"), "")
    script = render(
        "configuration/plugins-are-there.sh",
        files=plugin_files(lines),
        folders=folder.split(":") if folder else [],
        bases=sorted(BASE.values()),
    )
    return Validate("plugins", script, on=(slurm_conf,))
