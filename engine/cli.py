"""The command line: which verbs and flags there are, and how an invocation finds its stack.

One table says what is understood; everything else is refused by name with exit code 2. Verbs live
in the ``cli_*`` modules, imported when they are called, so that `pulumi version` is quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from engine.backend import Backend, StackRef
from engine.errors import FAILED, REFUSED, STACK_NOT_FOUND, CommandError, StackNotFound, refuse
from engine.workspace import ProjectFile, StackFile

# A flag: name, "/x" its short form, "=" takes a value, "=*" may be repeated, "#" is a number.
GLOBAL = "color= cwd/C= non-interactive logtostderr logflow verbose/v# emoji/e help/h"
STACK = "stack/s="
OPERATION = (
    f"{STACK} config-file= json/j diff event-log= message/m= debug/d parallel/p# target/t=* "
    "target-dependents expect-no-changes suppress-outputs suppress-progress suppress-permalink= "
    "show-secrets exec-kind= exec-agent= client= run-program= refresh/r= show-sames"
)
APPLY = f"{OPERATION} yes/y skip-preview/f preview-only continue-on-error"
CONFIG = f"{STACK} config-file="

COMMANDS: dict[str, tuple[str, str, str]] = {
    "": ("", "", ""),
    "version": ("cli_stack:version", "", ""),
    "about": ("cli_stack:about", f"json/j {STACK}", ""),
    "whoami": ("cli_stack:whoami", "json/j verbose/v", ""),
    "cancel": ("cli_stack:cancel", f"yes/y {STACK}", "[STACK]"),
    "stack": ("cli_stack:show", f"{STACK} show-ids/i show-urns/u show-secrets show-name", ""),
    "stack init": (
        "cli_stack:init",
        f"{STACK} secrets-provider= no-select yes/y non-interactive",
        "[NAME]",
    ),
    "stack select": ("cli_stack:select", f"{STACK} create/c secrets-provider=", "[NAME]"),
    "stack unselect": ("cli_stack:unselect", "", ""),
    "stack ls": ("cli_stack:list_stacks", "json/j all/a project/p=", ""),
    "stack rm": (
        "cli_stack:remove",
        f"{STACK} yes/y force/f preserve-config remove-backups",
        "[NAME]",
    ),
    "stack output": ("cli_stack:output", f"{STACK} json/j show-secrets shell", "[NAME]"),
    "stack export": ("cli_stack:export", f"{STACK} file= show-secrets", ""),
    "stack import": ("cli_stack:import_state", f"{STACK} file= force/f", ""),
    "stack history": (
        "cli_stack:history",
        f"{STACK} json/j show-secrets full-dates page-size# page#",
        "",
    ),
    "config": ("cli_config:show", f"{CONFIG} json/j show-secrets", ""),
    "config get": ("cli_config:get", f"{CONFIG} json/j path", "KEY"),
    "config set": ("cli_config:set_value", f"{CONFIG} path secret plaintext raw", "KEY [VALUE]"),
    "config set-all": ("cli_config:set_all", f"{CONFIG} path secret=* plaintext=* json=", ""),
    "config rm": ("cli_config:remove", f"{CONFIG} path", "KEY"),
    "config rm-all": ("cli_config:remove", f"{CONFIG} path", "KEY..."),
    "config refresh": ("cli_config:refresh", f"{CONFIG} force/f", ""),
    "preview": ("cli_deploy:preview", OPERATION, ""),
    "up": ("cli_deploy:up", APPLY, ""),
    "refresh": (
        "cli_deploy:refresh",
        f"{APPLY} clear-pending-creates skip-pending-creates",
        "",
    ),
    "destroy": ("cli_deploy:destroy", f"{APPLY} remove", ""),
}
ALIASES = {
    "pre": "preview", "update": "up", "down": "destroy",
    "stack new": "stack init", "stack list": "stack ls",
    "stack remove": "stack rm", "stack delete": "stack rm",
    "config remove": "config rm", "config delete": "config rm",
    "config remove-all": "config rm-all", "config delete-all": "config rm-all",
}  # fmt: skip
# Values that these flags must have if they are given: this engine knows no other way.
FIXED = {"run-program": {"false"}, "refresh": {"false"}, "exec-agent": None, "client": set()}


@dataclass(frozen=True)
class Flag:
    name: str
    takes: str  # "", "=", "=*" or "#"


def _flags(specification: str) -> dict[str, Flag]:
    """By ``--name`` and ``-x``."""
    table: dict[str, Flag] = {}
    for word in specification.split():
        bare = word.rstrip("=*#")
        name, _, short = bare.partition("/")
        table[f"--{name}"] = flag = Flag(name, word[len(bare) :])
        if short:
            table[f"-{short}"] = flag
    return table


@dataclass
class Invocation:
    """One command: its flags by name, its arguments, and what follows from where it runs."""

    verb: str = ""
    flags: dict[str, Any] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)

    def flag(self, name: str, default: Any = None) -> Any:
        return self.flags.get(name, default)

    def switch(self, name: str, variable: str) -> bool:
        """A flag that an environment variable sets, too; the flag itself wins."""
        default = os.environ.get(variable, "").lower() in ("1", "true")
        return bool(self.flag(name, default))

    @property
    def interactive(self) -> bool:
        return not self.flag("non-interactive") and sys.stdin.isatty() and sys.stdout.isatty()

    @cached_property
    def project(self) -> ProjectFile:
        return ProjectFile.find()

    @cached_property
    def backend(self) -> Backend:
        try:
            return Backend.open(self.project)
        except CommandError as error:
            if "no Pulumi.yaml" not in str(error):
                raise
            return Backend.open(None)

    def ref(self, name: str | None = None, must_exist: bool = True) -> StackRef:
        """The stack of the argument, ``--stack``, PULUMI_STACK, or the selected one."""
        text = name or self.flag("stack") or os.environ.get("PULUMI_STACK")
        project = None if text and text.count("/") == 2 else self.project.name
        text = text or self.project.selected(self.backend.url)
        if not text:
            raise CommandError(
                "no stack selected; please use `pulumi stack select` or "
                "`pulumi stack init` to choose one",
                FAILED if self.verb == "stack" else STACK_NOT_FOUND,
            )
        ref = StackRef.parse(text, project)
        if must_exist and not self.backend.exists(ref):
            raise StackNotFound(ref.name)
        return ref

    @cached_property
    def stack(self) -> StackRef:
        return self.ref()

    @cached_property
    def stack_file(self) -> StackFile:
        return self.project.stack_file(self.stack.name, self.flag("config-file"))


def parse(argv: list[str]) -> Invocation:
    """Read a command line as Pulumi does: flags anywhere, ``--`` ends them."""
    call = Invocation()
    table = _flags(GLOBAL)
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            call.arguments += words
            break
        if not word.startswith("-") or word == "-":
            verb = f"{call.verb} {word}".strip()
            verb = ALIASES.get(verb, verb)
            if verb in COMMANDS and not call.arguments:
                call.verb = verb
                table |= _flags(COMMANDS[verb][1])
            else:
                call.arguments.append(word)
            continue
        name, equals, value = word.partition("=")
        if not word.startswith("--") and len(name) > 2:
            name, equals, value = word[:2], "=", word[2:].removeprefix("=")
        flag = table.get(name)
        if flag is None:
            raise refuse(f"flag {name}")
        if not flag.takes:
            if equals and not word.startswith("--"):
                words.insert(0, f"-{value}")  # several short flags in one word
                value = "true"
            call.flags[flag.name] = value.lower() not in ("false", "0", "f") if equals else True
            continue
        if flag.name in ("refresh", "run-program", "suppress-permalink") and not equals:
            value = "true"
        elif not equals:
            if not words:
                raise CommandError(f"flag needs an argument: {name}")
            value = words.pop(0)
        if flag.takes == "=*":
            call.flags.setdefault(flag.name, []).append(value)
        elif flag.takes == "#":
            if not value.lstrip("-").isdigit():
                raise CommandError(f'invalid argument "{value}" for "--{flag.name}" flag')
            call.flags[flag.name] = int(value)
        else:
            call.flags[flag.name] = value
    return call


def _check(call: Invocation) -> None:
    handler, _, expected = COMMANDS[call.verb]
    word = call.arguments[0] if call.arguments else ""
    if not handler or (word and call.verb in ("stack", "config")):
        raise refuse(f"`pulumi {' '.join([call.verb, word]).strip()}`")
    names = expected.split()
    least = sum(not n.startswith("[") for n in names)
    if len(call.arguments) < least:
        raise CommandError(f"requires at least {least} arg(s), only received {len(call.arguments)}")
    if len(call.arguments) > len(names) and not expected.endswith("..."):
        raise CommandError(f'unknown argument "{call.arguments[len(names)]}" for "{call.verb}"')
    if call.verb in ("refresh", "destroy") and call.switch("run-program", "PULUMI_RUN_PROGRAM"):
        call.flags.setdefault("run-program", "true")
    for name, allowed in FIXED.items():
        if allowed is not None and call.flag(name, None) not in (None, *allowed):
            raise refuse(f"--{name}")


def _help(call: Invocation) -> int:
    if call.verb and call.verb not in ("stack", "config"):
        print(f"Usage:\n  pulumi {call.verb} {COMMANDS[call.verb][2]} [flags]\n\nFlags:")
        for name, flag in _flags(f"{COMMANDS[call.verb][1]} {GLOBAL}").items():
            if name.startswith("--"):
                print(f"  {name}{' VALUE' if flag.takes else ''}")
        return 0
    print("The slurmstack embedded engine: a small stand-in for the pulumi command.\n")
    print("Usage:\n  pulumi COMMAND [flags]\n\nCommands:")
    for verb in COMMANDS:
        if verb.startswith(call.verb):
            print(f"  {verb} {COMMANDS[verb][2]}".rstrip())
    return 0


def main(argv: list[str]) -> int:
    """Run one command; returns its exit code."""
    try:
        call = parse(argv)
        if call.flag("cwd"):
            os.chdir(call.flag("cwd"))
            os.environ["PWD"] = os.path.abspath(call.flag("cwd"))  # noqa: PTH100
        if call.flag("help") or not argv:
            return _help(call)
        _check(call)
        module, _, function = COMMANDS[call.verb][0].partition(":")
        code = getattr(importlib.import_module(f"engine.{module}"), function)(call)
        sys.stdout.flush()
        return int(code or 0)
    except CommandError as error:
        return _fail(str(error), error.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return _fail("canceled", 8)
    except OSError as error:
        return _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), FAILED)
    except Exception as error:
        from engine.api import EngineError, Unsupported

        if isinstance(error, Unsupported):
            return _fail(str(error), REFUSED)
        if isinstance(error, EngineError):
            return _fail(str(error), FAILED)
        raise


def _fail(message: str, code: int) -> int:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    return code
