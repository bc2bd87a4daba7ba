"""Pulumi's own releases from archives that a site keeps, for machines without a way out.

`engine.toml` beside Pulumi.yaml (docs/pulumi.md) names a folder or a mirror, and the archives with
their checksums. The command goes into the virtual environment, plugins where it looks for them
($PULUMI_HOME).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
import urllib.request
from pathlib import Path

from engine.workspace import pulumi_home

SECONDS = 60
"""For which a mirror may be silent, and a plugin take to be installed."""
_PLUGIN = re.compile(
    r"pulumi-resource-(.+)-v([^-]+(?:-(?:alpha|beta|rc)[^-]*)?)-[^-]+-[^-]+\.tar\.gz"
)


class ReleaseError(Exception):
    """What is wrong with the archives or with what names them; nothing has been put in place."""


def install(settings: Path, venv: Path) -> Path:
    """The command of the site's release, installed with its plugins if it is not yet. Raises
    ReleaseError."""
    try:
        document = tomllib.loads(settings.read_text())
        source, sums = str(document["source"]).removesuffix("/"), dict(document["sha256"])
        (name,) = (n for n in sums if not _PLUGIN.fullmatch(n))
    except (OSError, KeyError, ValueError, TypeError) as error:
        form = "`source`, and under `[sha256]` one archive of pulumi and those of its plugins"
        raise ReleaseError(f"{settings}: expected {form} ({error})") from None
    folder = venv / f"pulumi-{sums[name][:12]}"
    plugins = {n: m for n in sums if (m := _PLUGIN.fullmatch(n)) and not _installed(m).is_dir()}
    wanted = [*plugins, *([] if folder.is_dir() else [name])]
    with tempfile.TemporaryDirectory(dir=venv) as scratch:
        found = {n: _fetch(f"{source}/{n}", Path(scratch) / n) for n in wanted}
        wrong = [f"{n}: {found[n]}" for n in wanted if found[n] != sums[n]]
        if wrong:
            raise ReleaseError(f"{settings}: sha256 is another: of {'; of '.join(wrong)}")
        if name in wanted:
            with tarfile.open(Path(scratch) / name) as archive:
                # Before Python 3.11.4 (Debian 12 has 3.11.2) there are no filters.
                archive.extraction_filter = getattr(tarfile, "data_filter", None)
                archive.extractall(Path(scratch) / "release")
            (Path(scratch) / "release").rename(folder)
        command = next((p for p in folder.rglob("pulumi") if p.is_file()), folder / "pulumi")
        for plugin, match in plugins.items():
            _install_plugin(command, match, Path(scratch) / plugin)
    return command


def _installed(plugin: re.Match[str]) -> Path:
    return pulumi_home() / "plugins" / f"resource-{plugin[1]}-v{plugin[2]}"


def _fetch(place: str, target: Path) -> str:
    """Copy what is there; its checksum."""
    url = place if "://" in place else Path(place).absolute().as_uri()
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as archive, target.open("wb") as file:
            shutil.copyfileobj(archive, file)
    except OSError as error:
        raise ReleaseError(f"{place}: {getattr(error, 'reason', None) or error}") from None
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _install_plugin(command: Path, plugin: re.Match[str], archive: Path) -> None:
    argv = [command, "plugin", "install", "resource", plugin[1], f"v{plugin[2]}", "--file", archive]
    environment = os.environ | {"PULUMI_SKIP_UPDATE_CHECK": "true"}
    try:
        done = subprocess.run(argv, env=environment, capture_output=True, text=True,
                              timeout=SECONDS, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ReleaseError(f"{archive.name}: {error}") from None
    if done.returncode or not _installed(plugin).is_dir():
        raise ReleaseError(f"{archive.name}: not installed: {(done.stderr or done.stdout).strip()}")
