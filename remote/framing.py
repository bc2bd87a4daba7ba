"""What a command prints, told from what the start-up files of a login shell print around it.

A line in root's `.bashrc` runs with every command that comes over SSH, so nothing may be taken from
the whole of an output.
"""

BEGIN = "slurmstack-answer 1"
END = "slurmstack-answer end"


class FrameError(ValueError):
    """An output in which the frame is missing or was cut off. Quotes no more than one line, and
    nothing of the answer itself, which may be a token."""


def framed(script: str) -> str:
    """The sh script, so that its output can be told from others'. Its exit status stays."""
    return f"echo; echo '{BEGIN}'; (\n{script}\n); s=$?; echo; echo '{END}'; exit $s\n"


def within_frame(output: str) -> str:
    """What stands in the last frame of `output`. Raises `FrameError`."""
    _, begin, rest = output.rpartition(f"{BEGIN}\n")
    if not begin:
        raise FrameError(f"no answer in its output, which ends in {_last_line(rest)!r}")
    content, end, _ = rest.rpartition(f"\n{END}")
    if not end:
        raise FrameError("its answer is cut off")
    return content


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:200]
