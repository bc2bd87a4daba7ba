"""The command line: which verbs and flags there are, and how an invocation finds its stack.

One table says what is understood; everything else is refused by name with exit code 2. Verbs live
in the ``cli_*`` modules, imported when they are called, so that `pulumi version` is quick.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from engine.backend import Backend, StackRef
from engine.errors import FAILED, CommandError, StackNotFound, refuse
from engine.filter import SecretFilter
from engine.workspace import ProjectFile, StackFile

# A flag: name, "/x" its short form, "=" takes a value, "=*" may be repeated, "#" is a number. One
# that Pulumi has and this engine has not begins with "!": what neither has is an unknown flag.
GLOBAL = (
    "color= cwd/C= non-interactive logtostderr logflow verbose/v# emoji/e help/h "
    "!disable-integrity-checking !fully-qualify-stack-names/Q !memprofilerate !otel-traces "
    "!profiling !tracing"
)
STACK = "stack/s="
CONFIG = f"{STACK} config-file="
OPERATION = (
    f"{CONFIG} diff event-log= message/m= debug/d parallel/p# target/t=* target-dependents "
    "suppress-outputs suppress-progress suppress-permalink= exec-kind= exec-agent= client= "
    "run-program= !show-sames !config/c !config-path !neo !override-env !show-replacement-steps "
    "!skip-config-validation !skip-plugin-pre-install !urns"
)
APPLY = f"{OPERATION} yes/y skip-preview/f !json/j"
UPDATE = (
    "expect-no-changes show-secrets refresh/r= replace=* target-replace=* !attach-debugger "
    "!exclude-dependents !ignore-protect !policy-pack !policy-pack-config !show-config "
    "!show-full-output !show-policy-remediations !show-reads"
)

COMMANDS: dict[str, tuple[str, str, str]] = {
    "": ("", "!version", ""),
    "version": ("cli_stack:version", "", ""),
    "about": ("cli_stack:about", f"{STACK} !json/j !output !transitive/t", ""),
    "whoami": ("cli_stack:whoami", "json/j !output !verbose/v", ""),
    "cancel": ("cli_stack:cancel", f"yes/y {STACK}", "[STACK]"),
    "stack": ("cli_stack:show", f"{STACK} !show-ids/i show-urns/u show-secrets show-name "
              "!output", ""),
    "stack init": ("cli_stack:init", f"{STACK} secrets-provider= no-select yes/y "
                   "!copy-config-from !teams", "[NAME]"),
    "stack select": ("cli_stack:select", f"{STACK} !create/c !secrets-provider", "[NAME]"),
    "stack ls": ("cli_stack:list_stacks", f"{STACK} json/j all/a !organization/o !output "
                 "!project/p !tag/t", ""),
    "stack rm": ("cli_stack:remove", f"{STACK} yes/y force/f preserve-config remove-backups",
                 "[NAME]"),
    "stack output": ("cli_state:output", f"{STACK} json/j show-secrets !shell", "[NAME]"),
    "stack export": ("cli_state:export", f"{STACK} file= show-secrets !version", ""),
    "stack import": ("cli_state:import_state", f"{STACK} file= force/f", ""),
    "stack history": ("cli_state:history", f"{STACK} json/j show-secrets page-size# page# "
                      "!full-dates !output", ""),
    "config": ("cli_config:show", f"{CONFIG} json/j show-secrets !open", ""),
    "config get": ("cli_config:get", f"{CONFIG} json/j path !open", "KEY"),
    "config set": ("cli_config:set_value", f"{CONFIG} path secret plaintext raw !type",
                   "KEY [VALUE]"),
    "config set-all": ("cli_config:set_all", f"{CONFIG} path secret=* plaintext=* json=", ""),
    "config rm": ("cli_config:remove", f"{CONFIG} path", "KEY"),
    "config rm-all": ("cli_config:remove", f"{CONFIG} path", "KEY..."),
    "config refresh": ("cli_config:refresh", f"{CONFIG} force/f", ""),
    "preview": ("cli_deploy:preview", f"{OPERATION} {UPDATE} json/j !exclude/x !import-file "
                "!save-plan", ""),
    "up": ("cli_deploy:up", f"{APPLY} {UPDATE} continue-on-error !exclude !plan "
           "!secrets-provider !strict", ""),
    "refresh": ("cli_deploy:refresh", f"{APPLY} preview-only expect-no-changes "
                "clear-pending-creates !exclude/x !exclude-dependents !import-pending-creates "
                "!skip-pending-creates", ""),
    "destroy": ("cli_deploy:destroy", f"{APPLY} preview-only continue-on-error refresh/r= "
                "!exclude/x !exclude-protected !ignore-protect !remove !show-config "
                "!show-full-output", ""),
}  # fmt: skip
LACKING = {
    "": "api console convert deployment do env gen-completion import insights install login logout "
    "logs neo new org package plugin policy project schema state template watch",
    "about": "env",
    "stack": "change-secrets-provider drift get graph migrate rename schedule tag unselect webhook",
    "stack history": "events",
    "config": "copy cp env",
}
"""Verbs that Pulumi has below these and this engine has not."""
ALIASES = {
    "pre": "preview", "update": "up", "down": "destroy",
    "stack new": "stack init", "stack list": "stack ls",
    "stack remove": "stack rm", "stack delete": "stack rm",
    "config remove": "config rm", "config delete": "config rm",
    "config remove-all": "config rm-all", "config delete-all": "config rm-all",
}  # fmt: skip
MAY_MAKE = {"stack", "preview", "up", "refresh"}
"""Verbs that tell who has selected no stack that there is `stack init`, as those of config do."""
BOOLEAN = dict.fromkeys(("1", "t", "true"), True) | dict.fromkeys(("0", "f", "false"), False)
# Values that these flags must have if they are given: this engine knows no other way.
FIXED = {"run-program": {"false"}, "client": set[str](), "color": {"auto", "never"}}


@dataclass(frozen=True)
class Flag:
    name: str
    takes: str  # "", "=", "=*" or "#"
    short: str = ""
    lacking: bool = False

    @property
    def needs_value(self) -> bool:
        optional = ("refresh", "run-program", "suppress-permalink")
        return bool(self.takes) and self.name not in optional

    def wrong(self, value: str, go: str) -> CommandError:
        label = f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"
        return CommandError(
            f'invalid argument "{value}" for "{label}" flag: strconv.{go}: parsing "{value}": '
            "invalid syntax"
        )


def flags(specification: str) -> dict[str, Flag]:
    """By ``--name`` and ``-x``."""
    table: dict[str, Flag] = {}
    for word in specification.split():
        bare = word.rstrip("=*#").removeprefix("!")
        name, _, short = bare.partition("/")
        takes = word.removeprefix("!")[len(bare) :]
        table[f"--{name}"] = flag = Flag(name, takes, short, word.startswith("!"))
        if short:
            table[f"-{short}"] = flag
    return table


@dataclass
class Invocation:
    """One command: its flags by name, its arguments, and what follows from where it runs."""

    verb: str = ""
    flags: dict[str, Any] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    filter: SecretFilter = field(default_factory=SecretFilter)

    def flag(self, name: str, default: Any = None) -> Any:
        return self.flags.get(name, default)

    def switch(self, name: str, variable: str) -> bool:
        """A flag that an environment variable sets, too; the flag itself wins."""
        default = os.environ.get(variable, "").lower() in ("1", "true")
        return bool(self.flag(name, default))

    @property
    def interactive(self) -> bool:
        return not self.flag("non-interactive") and sys.stdin.isatty() and sys.stdout.isatty()

    @property
    def named(self) -> str | None:
        """The stack that the argument or ``--stack`` names."""
        if self.arguments and self.flag("stack"):
            raise CommandError(
                "only one of --stack or argument stack name may be specified, not both"
            )
        return self.arguments[0] if self.arguments else self.flag("stack")

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
            may_make = self.verb in MAY_MAKE or self.verb.startswith("config")
            hint = "or `pulumi stack init` " if may_make and self.verb != "config refresh" else ""
            raise CommandError(
                f"no stack selected; please use `pulumi stack select` {hint}to choose one"
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


def _find_verb(argv: list[str]) -> tuple[str, list[str]]:
    """The verb, and the words without it. A flag may go before it: there, as cobra has it, one that
    is not known takes the next word along."""
    verb, words, table, at = "", list(argv), flags(GLOBAL), 0
    while at < len(words) and words[at] != "--":
        word = words[at]
        if word.startswith("-") and word != "-":
            flag = table.get(word)
            apart = "=" not in word and (word.startswith("--") or len(word) == 2)
            at += 2 if apart and (flag is None or flag.needs_value) else 1
            continue
        deeper = f"{verb} {word}".strip()
        if word in LACKING.get(verb, "").split():
            raise refuse(f"`pulumi {deeper}`")
        if not word or ALIASES.get(deeper, deeper) not in COMMANDS:
            break
        verb, at = ALIASES.get(deeper, deeper), 0
        words.remove(word)
        table = flags(f"{GLOBAL} {COMMANDS[verb][1]}")
    return verb, words


def parse(argv: list[str]) -> Invocation:
    """Read a command line as Pulumi does: flags anywhere, ``--`` ends them."""
    verb, words = _find_verb(argv)
    call, table = Invocation(verb), flags(f"{GLOBAL} {COMMANDS[verb][1]}")
    for variable in (f"PULUMI_OPTION_{name[2:].replace('-', '_').upper()}" for name in table):
        if variable in os.environ:
            raise refuse(variable)
    while words:
        word = words.pop(0)
        if word == "--":
            call.arguments += words
            break
        if not word.startswith("-") or word == "-":
            call.arguments.append(word)
            continue
        name, equals, value = word.partition("=")
        if not word.startswith("--") and len(name) > 2:
            name, equals, value = word[:2], "=", word[2:].removeprefix("=")
        flag = table.get(name)
        if flag is None:
            short = f"shorthand flag: '{name[1:]}' in {word}"
            raise CommandError(f"unknown {f'flag: {name}' if name[:2] == '--' else short}")
        if flag.lacking:
            raise refuse(f"flag {name} of `pulumi {call.verb}`")
        if not flag.takes:
            if equals and not word.startswith("--"):
                words.insert(0, f"-{value}")  # several short flags in one word
                equals = ""
            if equals and value.lower() not in BOOLEAN:
                raise flag.wrong(value, "ParseBool")
            call.flags[flag.name] = BOOLEAN[value.lower()] if equals else True
            continue
        if not flag.needs_value and not equals:
            value = "true"
        elif not equals:
            if not words:
                raise CommandError(f"flag needs an argument: {name}")
            value = words.pop(0)
        if flag.takes == "=*":
            call.flags.setdefault(flag.name, []).append(value)
        elif flag.takes == "#":
            if not value.lstrip("-").isdigit():
                raise flag.wrong(value, "ParseInt")
            call.flags[flag.name] = int(value)
        else:
            call.flags[flag.name] = value
    return call


def _check(call: Invocation) -> None:
    handler, _, expected = COMMANDS[call.verb]
    count, word = len(call.arguments), call.arguments[0] if call.arguments else ""
    if not handler or (word and call.verb in ("stack", "config")):
        path = f"pulumi {call.verb}".strip()
        raise CommandError(
            f'unknown command "{word}" for "{path}"\nRun \'{path} --help\' for usage.'
        )
    if word and call.verb == "up":
        raise refuse(f"`pulumi up` of a template ({word})")
    names = expected.split()
    least, most = sum(not n.startswith("[") for n in names), len(names)
    if count < least and (least < most or expected.endswith("...")):
        raise CommandError(f"requires at least {least} arg(s), only received {count}")
    if not expected.endswith("...") and not least <= count <= most:
        between = f"between {least} and {most}" if least else f"at most {most}"
        wanted = least if least == most else between
        raise CommandError(f"accepts {wanted} arg(s), received {count}")
    if call.verb in ("refresh", "destroy") and call.switch("run-program", "PULUMI_RUN_PROGRAM"):
        call.flags.setdefault("run-program", "true")
    for name, allowed in FIXED.items():
        if call.flag(name) not in (None, *allowed):
            raise refuse(f"--{name}")


def _help(call: Invocation) -> int:
    print("The slurmstack embedded engine: a small stand-in for the pulumi command.\n")
    print("Usage:\n  pulumi COMMAND [flags]\n\nCommands and their flags:")
    for verb, (_, specification, arguments) in COMMANDS.items():
        if verb.startswith(call.verb):
            known = [n for n, f in flags(specification).items() if n[:2] == "--" and not f.lacking]
            print(f"  {verb} {' '.join([arguments, *known])}".rstrip())
    return 0


def main(argv: list[str]) -> int:
    """Run one command; returns its exit code."""
    secrets = SecretFilter()
    try:
        call = parse(argv)
        call.filter = secrets
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
        return _fail(secrets.text(str(error)), error.code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        return _fail("canceled", 8)
    except OSError as error:
        message = f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
        return _fail(secrets.text(message), FAILED)
    except Exception:
        return _fail(secrets.text(f"internal error: {traceback.format_exc()}"), FAILED)


def _fail(message: str, code: int) -> int:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    return code
