"""Commands that the next ``pulumi up`` is to run again, whatever has changed.

The state holds what a command printed, and nothing runs it again while its inputs stay as they are:
what could not be read would be read again for ever. And of an update that failed it holds the
inputs of before: settings that go back to these are no change, though the node has gone part of
the way. So such commands are counted in a file beside
the program, and the count, in a comment, is a change of their inputs. Where the file is lost, the
command runs once more.
"""

from __future__ import annotations

import json
from pathlib import Path

import pulumi


def counted(name: str, command: str) -> str:
    """The command, with the times that it was to be run again."""
    times = _read().get(name, 0)
    return f"{command}\n# asked again: {times}" if times else command


def ask_again(name: str) -> None:
    """Let the next run of the program run the command of this name again."""
    times = _read()
    times[name] = times.get(name, 0) + 1
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(json.dumps(times, indent=2, sort_keys=True) + "\n")
    new.replace(file)


def _read() -> dict[str, int]:
    try:
        asked = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return {str(name): int(times) for name, times in asked.items()}


def _file() -> Path:
    return Path(__file__).parents[1] / ".slurmstack" / pulumi.get_stack() / "asked-again.json"
