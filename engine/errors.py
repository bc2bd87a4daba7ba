"""What ends a command: a message for the operator and Pulumi's exit code for it."""

from __future__ import annotations

FAILED = 1
REFUSED = 2
STACK_NOT_FOUND = 6
CHANGES_UNEXPECTED = 7
CANCELED = 8


class CommandError(Exception):
    """Printed as ``error: MESSAGE`` on standard error. Exit codes are those of Pulumi's
    pkg/cmd/pulumi/cmd/exit_codes.go."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


class StackNotFound(CommandError):
    """The text is what the Automation API recognises as StackNotFoundError."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no stack named '{name}' found", STACK_NOT_FOUND)


class EngineError(CommandError):
    """The operation cannot start or go on."""


class CallError(CommandError):
    """What the program asked for in one call is not there; what it makes of that is its own."""


class Unsupported(CommandError):
    """Asked for something that Pulumi has and this engine has not; the message names it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, REFUSED)


def refuse(what: str) -> Unsupported:
    return Unsupported(
        f"{what} is not supported by the slurmstack embedded engine; install Pulumi "
        "(https://www.pulumi.com/docs/install/) and choose it with PULUMI_ENGINE=cli"
    )
