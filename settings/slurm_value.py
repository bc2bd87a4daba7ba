"""A value of Slurm's files: what an operator may write for a parameter, and how the file has it.

One rule for all of Slurm's files (slurm.conf(5), the parser of 23.11 to 25.11): a value stands on
one line; blanks need quotes; ``#`` begins a comment unless a backslash is before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import BeforeValidator, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from settings import parameters
from settings.parameters import Parameter
from settings.problems import shown

Scalar = bool | int | float | str
Value = Scalar | Sequence[Scalar]

_EVERY = ("UNLIMITED", "INFINITE")
_NUMBERS = {"int16": 2**16 - 1, "int32": 2**32 - 1, "int64": 2**64 - 1}
_YES, _NO = ("yes", "up", "true", "1"), ("no", "down", "false", "0")
_LEVELS = (
    "quiet", "fatal", "error", "info", "verbose", "debug", "debug2", "debug3", "debug4", "debug5",
)  # fmt: skip
_TIME = re.compile(r"-1|\d+|\d+:\d{1,2}|\d+:\d{1,2}:\d{1,2}|\d+-\d{1,2}(:\d{1,2}){0,2}", re.ASCII)


def file_text(value: Value) -> str:
    """A value as the file has it: lists with commas, booleans as YES and NO, blanks in quotes,
    ``#`` and backslash escaped.

    Raises:
        ValueError: with what would have to be there, since no file of Slurm's can hold it.
    """
    text = plain(value)
    if re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029]", text):
        raise ValueError("a value on one line, without control characters")
    if len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]:
        text = text[1:-1]
    if '"' in text and (text[0] == '"' or re.search(r"\s", text)):
        raise ValueError('a value without " where it has blanks, since Slurm puts it into quotes')
    if not text:
        raise ValueError("a value; leave the parameter out where Slurm's default is meant")
    # The parser takes comments off, then escapes, and reads words and quotes last.
    escaped = text.replace("\\", "\\\\").replace("#", "\\#")
    return f'"{escaped}"' if re.search(r"\s", text) else escaped


def plain(value: Value) -> str:
    """A value as text, neither quoted nor escaped."""
    if isinstance(value, bool):
        return "YES" if value else "NO"
    if isinstance(value, list | tuple):
        return ",".join(plain(item) for item in value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def checked(parameter: Parameter, value: Any) -> str:
    """The text of a parameter's value, as Slurm is to read it; :func:`file_text` writes it.

    Raises:
        ValueError: with what is expected, in Slurm's words.
    """
    value = _one_value(value)
    file_text(value)
    text = plain(value).strip('"') if isinstance(value, str) else plain(value)
    kind = parameter.kind
    if kind in ("options", "flags", "plugins"):
        text = _list(parameter, value)
    elif isinstance(value, list) and kind != "text":
        raise ValueError(f"one value, such as {example(parameter)}")
    if kind in _NUMBERS or kind == "float":
        _number(parameter, text)
    if kind == "bool" and text.lower() not in _YES + _NO:
        raise ValueError("YES or NO")
    if kind == "choice":
        text = _choice(parameter, text)
    if kind == "flags":
        text = ",".join(_flag(parameter, word, value) for word in text.split(","))
    if kind in ("plugin", "plugins"):
        for name in text.split(","):
            _plugin(parameter, name)
    _by_pattern(parameter, value, text)
    return text


def setting(file: str, name: str) -> BeforeValidator:
    """What checks a setting that is this parameter of the table."""
    parameter = parameters.table(file)[name.lower()]
    return BeforeValidator(lambda value: checked(parameter, value))


def example(parameter: Parameter) -> str:
    """A value that this parameter may have."""
    kind = parameter.kind
    if parameter.example:
        return parameter.example
    if kind in ("choice", "flags"):
        return parameter.of[0]
    if kind in ("plugin", "plugins"):
        names = [name for name in parameters.plugins(parameter.of[0]) if name != "none"]
        return f"{parameter.of[0]}/{names[0] if names else 'NAME'}"
    if kind in _NUMBERS or kind == "float":
        return str(max(parameter.min, min(60, parameter.max or 60)))
    return {
        "bool": "YES", "level": "info", "path": "/usr/lib", "paths": "/usr/lib",
        "ports": "6820-6830", "range": "60001-63000", "program": "/usr/local/sbin/program",
        "time": "1-12:00:00", "options": "one,two",
    }.get(kind, "text")  # fmt: skip


def _one_value(value: Any) -> Value:
    """The value itself, where it is of a type that a parameter can have at all."""
    items = value if isinstance(value, list | tuple) else [value]
    if not items or not all(isinstance(item, bool | int | float | str) for item in items):
        raise ValueError("one value, or a list of values ([one, two])")
    return list(value) if isinstance(value, tuple) else value


def _list(parameter: Parameter, value: Value) -> str:
    """Words with commas between; blanks beside a comma say nothing and go."""
    text = plain(value).strip('"')
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not word or (re.search(r"\s", word) and "=" not in word):
            raise ValueError(f"words with commas between, such as {example(parameter)},…")
    return ",".join(words)


def _number(parameter: Parameter, text: str) -> None:
    most = parameter.max if parameter.max is not None else _NUMBERS.get(parameter.kind)
    if parameter.kind == "float":
        if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) and text.upper() not in _EVERY:
            raise ValueError("a number, such as 95.5")
        return
    if text.upper() in _EVERY:
        return
    if not re.fullmatch(r"[0-9]+", text) or not parameter.min <= int(text) <= (most or 0):
        raise ValueError(f"a whole number from {parameter.min} to {most}")


def _choice(parameter: Parameter, text: str) -> str:
    words = {word.lower(): word for word in parameter.of}
    word, _, count = text.partition(":")
    if parameter.counted and word.lower() in words and re.fullmatch(r"[0-9]{1,5}", count):
        return f"{words[word.lower()]}:{count}"
    if text.lower() not in words and not (
        parameter.name == "EnforcePartLimits" and text.lower() in _YES + _NO
    ):
        raise ValueError(f"one of {', '.join(parameter.of)}")
    return words.get(text.lower(), text)


def _flag(parameter: Parameter, word: str, value: Value) -> str:
    if value is False and "OFF" in parameter.of:
        return "OFF"
    sign = word[:1] if parameter.signs and word[:1] in "+-" else ""
    words = {known.lower(): known for known in parameter.of}
    bare = word.removeprefix(sign).lower()
    if bare not in words:
        near = parameters.nearest(bare, parameter.of)
        meant = f" ({near}?)" if near else ""
        words_of = ", ".join(parameter.of[:12])
        more = f", … (the whole list: {parameter.file}(5))" if len(parameter.of) > 12 else ""
        raise ValueError(f"words of {words_of}{more}{meant}")
    return sign + words[bare]


def _plugin(parameter: Parameter, name: str) -> None:
    kind = parameter.of[0]
    known = parameters.plugins(kind)
    prefix, slash, rest = name.rpartition("/")
    if known and (rest not in known or (slash and prefix != kind)):
        full = [f"{kind}/{plugin}" for plugin in known]
        near = parameters.nearest(f"{kind}/{rest}", full)
        meant = f" ({near}?)" if near else ""
        raise ValueError(f"a plugin that Slurm has: {', '.join(full)}{meant}")
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", rest):
        raise ValueError(f"the name of a plugin, such as {kind}/NAME")


def _by_pattern(parameter: Parameter, value: Value, text: str) -> None:
    kind = parameter.kind
    if kind == "level" and (
        isinstance(value, bool) or text.lower() not in (*_LEVELS, *map(str, range(10)))
    ):
        raise ValueError(f"one of {', '.join(_LEVELS)}, or its number from 0 to 9")
    if kind == "time" and (
        isinstance(value, bool) or not (_TIME.fullmatch(text) or text.upper() in _EVERY)
    ):
        raise ValueError(
            "minutes, or a time such as 12:00:00 or 1-12:00:00 (days-hours:minutes:seconds), "
            "or UNLIMITED"
        )
    if kind == "path" and (not text.startswith("/") or re.search(r"\s", text)):
        raise ValueError(f"the whole path of a file or folder, such as {example(parameter)}")
    if kind == "program" and not text.startswith("/"):
        raise ValueError(f"the whole path of a program, such as {example(parameter)}")
    if kind == "paths" and not re.fullmatch(r"(NONE|/[^\s,]*(,/[^\s,]*)*)", text):
        raise ValueError("whole paths with commas between, such as /usr/lib,/opt/lib")
    if kind == "ports" and not _is_ports(text):
        raise ValueError("a port or a range of ports, such as 6817 or 6820-6830")
    if kind == "range" and not (_is_ports(text) and "-" in text):
        raise ValueError("a range of ports, such as 60001-63000")


def _is_ports(text: str) -> bool:
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", text)
    if match is None:
        return False
    first, last = int(match[1]), int(match[2] or match[1])
    return 1 <= first <= last <= 65535


class Extra(dict[str, str]):
    """Parameters without a setting of their own → their text, names spelled as Slurm spells them.

    `insisted`: those that were written with ``!``, which no release of the table need know.
    """

    insisted: frozenset[str] = frozenset()


def extra_of(
    file: str,
    typed: Iterable[str] = (),
    elsewhere: Mapping[str, str] | None = None,
    quoted: bool = True,
) -> Callable[[Any], Extra]:
    """The one rule of an ``extra``: parameters that its file has, each once in any spelling, with
    values that it can hold, and none that a setting gives already.

    Args:
        file: a file of the table, or a kind of line in one.
        typed: parameters that are settings of their own, one level up.
        elsewhere: lower-case name → the setting that it follows from.
        quoted: whether a report may show a wrong value; a password's never is.
    """
    above = {name.lower(): name for name in typed}

    def read(value: Any) -> Extra:
        extra = Extra(
            each_entry(
                value, lambda name, entry: _entry(file, name, entry, above, elsewhere or {}), quoted
            )
        )
        names = (str(name) for name in value)
        extra.insisted = frozenset(_entry_name(file, name) for name in names if name.endswith("!"))
        return extra

    return read


def each_entry(
    value: Any, read: Callable[[str, Any], tuple[str, str]], quoted: bool = True
) -> dict[str, str]:
    """What `read` makes of each name and value of a mapping, each name once.

    Raises:
        ValidationError: with all mistakes, each at its name.
        ValueError: it is no mapping.
    """
    if not isinstance(value, Mapping):
        raise ValueError("names and their values, such as {NAME: value}")
    owners: dict[str, str] = {}
    mistakes: list[InitErrorDetails] = []
    for written, entry in value.items():
        try:
            name, text = read(str(written), entry)
            if name in owners:
                raise ValueError(f"{name} once")
            owners[name] = text
        except ValueError as error:
            secret = not quoted or "pass" in str(written).lower()
            shows = {"expected": str(error), "found": "a value" if secret else shown(entry)}
            kind = PydanticCustomError("refused", "{expected}", shows)
            mistakes.append(InitErrorDetails(type=kind, loc=(written,), input=entry))
    if mistakes:
        raise ValidationError.from_exception_data("extra", mistakes)
    return owners


def _entry_name(file: str, written: str) -> str:
    bare = written.removesuffix("!").strip()
    parameter = parameters.find(file, bare)
    return bare if parameter is None else parameter.name


def _entry(
    file: str, written: str, value: Any, above: Mapping[str, str], elsewhere: Mapping[str, str]
) -> tuple[str, str]:
    bare = written.removesuffix("!").strip()
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", bare):
        raise ValueError(f"the name of a parameter of {file}, letters and digits only")
    if bare.lower() in above:
        raise ValueError(f"{above[bare.lower()]} one level up, where it is typed")
    if bare.lower() in elsewhere:
        raise ValueError(f"{elsewhere[bare.lower()]} instead of {bare}")
    parameter = parameters.find(file, bare)
    if written.endswith("!"):
        file_text(_one_value(value))
        return _entry_name(file, written), plain(value)
    if parameter is None or parameter.gone:
        raise ValueError(unknown(file, bare, parameter))
    return parameter.name, checked(parameter, value)


def unknown(file: str, name: str, parameter: Parameter | None) -> str:
    """What is expected in place of a name that no release of the table has."""
    insist = f'; if your Slurm has it, write "{name}!"'
    title = file if " " not in file else "a {1} line of {0}".format(*file.split(" "))
    if parameter is not None and parameter.until is not None:
        note = f": {parameter.note}" if parameter.note else ""
        last = parameters.written(parameter.until)
        return f"no {parameter.name}, which Slurm has no more after {last}{note}{insist}"
    names = [parameter.name for parameter in parameters.table(file).values() if not parameter.gone]
    near = parameters.nearest(name, names)
    meant = f"{near}, the nearest parameter" if near else "a parameter"
    return f"{meant} of {title} ({parameters.written(parameters.OLDEST)} to " + (
        f"{parameters.written(parameters.NEWEST)}){insist}"
    )


def release_problem(parameter: Parameter, release: parameters.Release) -> str | None:
    """What is expected where the deployed release does not heed a parameter; None: it does."""
    if parameter.in_release(release):
        return None
    deployed = parameters.written(release)
    if parameter.since is not None and release < parameter.since:
        since = parameters.written(parameter.since)
        return f"no {parameter.name} with Slurm {deployed}: {since} is the first that has it"
    note = f": {parameter.note}" if parameter.note else ""
    last = parameters.written(parameter.until or release)
    return f"no {parameter.name} with Slurm {deployed}: {last} was the last that had it{note}"
