"""A bundle's text is read back as the bundle that it was made of."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote.bundle import (
    Absent,
    Bundle,
    BundleError,
    Check,
    Command,
    Directory,
    File,
    Group,
    Guard,
    Link,
    Package,
    Part,
    Unit,
    User,
    Validate,
    Withdrawal,
)
from remote.reading import read
from tests.prod import bundles as bundles_of_production
from tests.unit.remote.test_applier import CONTENTS
from tests.unit.remote.test_bundle import WHOLE

NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._@:+-]{0,12}", fullmatch=True)
PATHS = st.from_regex(r"(/[A-Za-z0-9_@:%+=~\\-]{1,8}){1,3}", fullmatch=True)
OWNERS = st.from_regex(r"[a-z]{1,5}:[a-z]{1,5}", fullmatch=True)
MODES = st.from_regex(r"[0-7]{4}", fullmatch=True)
SECONDS = st.integers(1, 9999)
NUMBERS = st.none() | st.integers(0, 70000)
PACKAGES = st.from_regex(r"[a-z0-9][a-z0-9+.-]{1,8}", fullmatch=True)
UNITS = st.from_regex(r"[a-z0-9_][a-z0-9@\\-]{0,8}\.(service|timer|mount)", fullmatch=True)
LINES = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), max_size=30)
#: As the reader gives it back: the newlines around it say nothing.
SCRIPTS = (
    st.lists(LINES, min_size=1, max_size=5)
    .map(lambda lines: "\n".join(lines).strip("\n"))
    .filter(str.strip)
)
ONE_LINE = LINES.filter(str.strip)
RELOADS = st.none() | st.lists(ONE_LINE, min_size=1, max_size=3).map("\n".join)
TRUE_FALSE = st.none() | st.booleans()


def some(one: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(one, max_size=3, unique=True).map(lambda items: tuple(sorted(items)))


def parts(paths: list[str]) -> dict[type[Any], st.SearchStrategy[Any]]:
    """Kind → such parts; paths that others wait for are those given."""
    on = some(st.sampled_from(paths))
    return {
        Guard: st.builds(
            Guard, NAMES, SCRIPTS, st.sampled_from(["apply", "remove", "both"]), SECONDS
        ),
        Package: st.builds(
            Package,
            PACKAGES,
            st.none() | st.from_regex(r"[0-9A-Za-z][a-z0-9.+:~-]*", fullmatch=True),
        ),
        Group: st.builds(Group, NAMES, NUMBERS),
        User: st.builds(User, NAMES, NUMBERS, NAMES, st.none() | PATHS, st.none() | PATHS),
        Directory: st.builds(Directory, PATHS, OWNERS, MODES, st.booleans(), st.booleans()),
        File: st.builds(File, PATHS, CONTENTS, OWNERS, MODES, st.booleans()),
        Link: st.builds(
            Link, PATHS, st.from_regex(r"[A-Za-z0-9._/@:%+=~-]{1,9}", fullmatch=True)
        ),
        Absent: st.builds(Absent, PATHS),
        Validate: st.builds(Validate, NAMES, SCRIPTS, on.filter(bool), SECONDS),
        Command: st.builds(
            Command, NAMES, SCRIPTS, on, st.sampled_from(["apply", "remove"]), SECONDS,
            st.none() | SCRIPTS, some(UNITS), some(UNITS),
        ),
        Unit: st.builds(
            Unit, UNITS, TRUE_FALSE, TRUE_FALSE, on, on, RELOADS, some(ONE_LINE), on,
            some(ONE_LINE), SECONDS,
        ),
        Withdrawal: st.builds(Withdrawal, NAMES, SCRIPTS, SECONDS) | st.builds(
            Withdrawal, NAMES, SCRIPTS, SECONDS, on.filter(bool), UNITS
        ),
        Check: st.builds(Check, NAMES, SCRIPTS, SECONDS),
    }  # fmt: skip


@st.composite
def bundles(draw: st.DrawFn) -> Bundle:
    fixed = [File("/etc/fixed=1", "one\n"), File("/etc/other", b"\1\2"), Package("given", "1.0")]
    kinds = parts([part.key for part in fixed])
    drawn = draw(st.lists(st.one_of(*kinds.values()), max_size=12))
    unique = {part.key: part for part in [*drawn, *fixed]}
    return Bundle("cn01", "demo", unique.values())


def as_read(part: Part) -> Part:
    """What the text does not tell apart."""
    if isinstance(part, File):
        content = part.content
        if isinstance(content, str) and ((content and content[-1] != "\n") or "\0" in content):
            content = content.encode()
        return File(part.path, content, part.owner, part.mode, part.lasting)
    return part


def in_any_order(bundle: Bundle) -> set[Part]:
    return {as_read(part) for part in bundle.parts}


def test_every_kind_of_part_is_made_here() -> None:
    assert set(parts(["/etc/fixed"])) == set(get_args(Part))


@pytest.mark.slow
@given(bundle=bundles(), word=st.none() | NAMES)
def test_the_text_is_read_back(bundle: Bundle, word: str | None) -> None:
    back = read(bundle.render(word))
    assert (back.node, back.role) == (bundle.node, bundle.role)
    assert in_any_order(back) == in_any_order(bundle)
    assert back.render() == bundle.render()


def test_a_text_written_by_hand() -> None:
    assert read(WHOLE).render() == WHOLE


@pytest.mark.slow
def test_every_bundle_of_production() -> None:
    for text in bundles_of_production():
        assert read(text).render() == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "not a bundle of version 1"),
        ("slurmstack-bundle 2\nend\n", "not a bundle of version 1"),
        (WHOLE.removesuffix("end\n"), "not whole"),
        (WHOLE.replace("node cn01\n", ""), "not whole"),
        (WHOLE.replace("absent /etc", "sorcery /etc"), "a line sorcery that is not understood"),
        (WHOLE.replace("timeout=30", "patience=30"), "a line guard that is not understood"),
        (WHOLE.replace("  OTo7", "  !"), "a line file-base64 that is not understood"),
        (WHOLE.replace("apt.timer disabled", "apt.timer perhaps"), "a line unit"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_without_quoting_it(text: str, found: str) -> None:
    with pytest.raises(BundleError, match=found) as error:
        read(text)
    assert "SLURMD_OPTIONS" not in str(error.value)
