"""A scratch machine: an empty root folder, stand-ins on PATH, and the real applier run on it."""

import os
import re
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from remote.answer import Answer, parse_answer
from remote.commands import APPLIER
from remote.comparison import Comparison, parse_comparison
from tests.unit.remote import standins

# What the applier calls of the real system; each can be wrapped to record or to crash.
REAL_TOOLS = [
    "awk",
    "base64",
    "cat",
    "chmod",
    "chown",
    "cmp",
    "comm",
    "cp",
    "cut",
    "date",
    "diff",
    "find",
    "grep",
    "head",
    "id",
    "ln",
    "ls",
    "mkdir",
    "mv",
    "paste",
    "readlink",
    "rm",
    "rmdir",
    "sed",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "sync",
    "tac",
    "tail",
    "timeout",
    "touch",
    "tr",
    "uname",
    "xargs",
]

#: As a module, so that Python compiles it once.
STANDIN = (
    f"exec {sys.executable} -S -I -c \"import sys; sys.path.append('{Path(__file__).parent}')"
    '; import standins; sys.exit(standins.main())" "$0" "$@"'
)

ERROR = re.compile(r"slurmstack: (?P<node>\S+): (?P<step>[^:]+(?::\S+)?): (?P<rest>.+; .+)")


@dataclass
class Run:
    """One run of the applier."""

    status: int
    stdout: str
    stderr: str

    @property
    def answer(self) -> Answer:
        assert self.status == 0, self.stderr
        return parse_answer(self.stdout)

    @property
    def error(self) -> str:
        """The last line of stderr, of which the form is checked here, for all tests."""
        assert self.status == 1, (self.status, self.stderr)
        assert self.stdout == ""
        line = self.stderr.splitlines()[-1]
        assert ERROR.fullmatch(line), line
        return line


@dataclass
class Machine:
    """`root` is the scratch root, `folder` what the stand-ins keep."""

    root: Path
    folder: Path
    shell: tuple[str, ...] = ("dash",)
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True)
        tools = self.folder / "bin"
        tools.mkdir(parents=True)
        self.system({})
        for name in standins.NAMES:
            self.tool(name, STANDIN)
        (self.folder / "applier").write_text(APPLIER)
        for path in ("etc", "run", "dev/shm", "usr/sbin", "var/lib/dpkg/updates"):
            (self.root / path).mkdir(parents=True)

    def tool(self, name: str, text: str) -> None:
        """Puts a shell text in the place of a command."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def wrap_tools(self, before: str) -> None:
        """Every real tool the applier calls first runs `before` (shell text)."""
        for name in REAL_TOOLS:
            real = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
            self.tool(name, f'{before}\nexec {real} "$@"')

    def system(self, state: dict[str, Any]) -> None:
        standins.save(f"{self.folder}/state", state)

    @property
    def state(self) -> dict[str, Any]:
        return standins.load(f"{self.folder}/state")

    def take_calls(self) -> list[str]:
        """Changing calls since the last time."""
        state = self.state
        calls: list[str] = state.pop("calls", [])
        self.system(state)
        return calls

    def path(self, path: str) -> Path:
        return Path(f"{self.root}{path}")

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> Path:
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)
        return target

    def start(self, verb: str, **more: Any) -> "subprocess.Popen[bytes]":
        environment = {
            "PATH": f"{self.folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "SLURMSTACK_ROOT": str(self.root),
            "STANDIN": str(self.folder),
            "SLURMSTACK_DPKG_WAIT": "3",
            **self.environment,
        }
        return subprocess.Popen(
            [*self.shell, str(self.folder / "applier"), verb],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **more,
        )

    def run(self, verb: str, bundle: str) -> Run:
        process = self.start(verb)
        # Bytes, as text pipes would translate line ends.
        stdout, stderr = process.communicate(bundle.encode(), timeout=300)
        return Run(process.returncode, stdout.decode(), stderr.decode())

    def apply(self, bundle: str) -> Run:
        return self.run("apply", bundle)

    def remove(self, bundle: str) -> Run:
        return self.run("remove", bundle)

    def compare(self, *bundles: str) -> Comparison:
        run = self.run("compare", "".join(bundles))
        return parse_comparison(run.stdout)

    def tree(self) -> dict[str, tuple[int, int, int, str]]:
        """All that a run could touch: inode, mtime, mode and content by path. /run is left out,
        where every run takes its lock."""
        result = {}
        for folder, names, files in os.walk(self.root):
            if Path(folder) == self.root:
                names[:] = [name for name in names if name != "run"]
            for name in names + files:
                path = Path(folder) / name
                info = path.lstat()
                content = ""
                if path.is_symlink():
                    content = str(path.readlink())
                elif stat.S_ISREG(info.st_mode):
                    content = path.read_bytes().hex()
                key = str(path).removeprefix(str(self.root))
                mtime = 0 if path.is_dir() and not path.is_symlink() else info.st_mtime_ns
                result[key] = (info.st_ino, mtime, info.st_mode, content)
        return result

    def leftovers(self) -> list[str]:
        """Temporary files that no finished run may leave anywhere."""
        found = [str(path) for path in self.root.rglob("*") if "slurmstack-new" in path.name]
        found += [str(path) for path in self.root.rglob("*.new")]
        found += [str(path) for path in (self.root / "usr/sbin").iterdir()]
        work = self.root / "run/slurmstack"
        if work.exists():
            # That a role was begun stays noted, and what it said at last.
            names = (path for path in work.iterdir() if not path.name.startswith("run-"))
            found += [str(path) for path in names if path.name != "lock"]
        return found
