"""What `slurmstack validate` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from operations.documents import Row
from operations.validations import Validation, Word
from settings.hostlist import fold


def lines(found: Validation) -> Iterator[str]:
    """A line a test and verdict; nodes of which the same is said stand together."""
    versions = ", ".join(f"{name} {text}" for name, text in found.versions.items())
    yield f"{fold(found.nodes)}, level {found.level}, {versions}"
    groups: dict[tuple[str, str, str], list[Word]] = {}
    for word in found.words:
        groups.setdefault((word.test, word.verdict, word.words), []).append(word)
    for (test, verdict, text), alike in groups.items():
        nodes = fold([word.node for word in alike if word.node])
        figures = ", ".join(
            f"{word.node} {word.figure:g} {word.unit}" for word in alike if word.figure is not None
        )
        parts = filter(None, [nodes if not figures else "", figures, text])
        yield f"  {verdict:<9} {test}{': ' if nodes or text else ''}{'; '.join(parts)}"
    counted = Counter(word.verdict for word in found.words)
    yield ", ".join(f"{number} {verdict}" for verdict, number in counted.most_common())


def of_documents(rows: Sequence[Row]) -> Iterator[str]:
    """The criteria, below their tasks."""
    task = ""
    for row in rows:
        if row.task != task:
            task = row.task
            yield f"Task {row.task}"
        yield f"  {row.verdict:<9} {row.criterion}: {row.how}"
    counted = Counter(row.verdict for row in rows)
    yield ", ".join(f"{number} {verdict}" for verdict, number in counted.most_common())
