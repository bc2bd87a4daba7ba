"""A terminal's live view: resources as a tree, each with what happens to it now."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from engine.display import steps
from engine.display.progress import ProgressDisplay, Row
from engine.printing import branches

_HEAD = ("", "Type", "Name", "Status", "Info")


class TreeDisplay(ProgressDisplay):
    """Draws the rows anew four times a second; what follows them is printed as without it."""

    terminal = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._console = Console(highlight=False, soft_wrap=True)
        self._live = Live(get_renderable=self.draw, console=self._console, refresh_per_second=4)
        self._live.start()

    def println(self, line: str = "") -> None:
        # The lines between the rows and the summary are the tree's own affair until it is closed.
        if self.done:
            print(line, flush=True)

    def tick(self) -> None:
        pass

    def updated(self, row: Row) -> None:
        pass

    def shown_op(self, row: Row) -> str:
        """A replacement is one thing here, unless it is under way or has failed."""
        op = super().shown_op(row)
        if op in steps.REPLACEMENTS and (self.style.preview or self.done) and not self.failed:
            return "replace"
        return op

    def _finish(self, rows: list[Row]) -> None:
        self._live.stop()

    def draw(self) -> Text:
        lines = list(self._lines())
        room = max(self._console.height - 2, 3)
        if not self.done and len(lines) > room:
            # What is under way matters most when not everything fits.
            busy = [line for line, row in lines[1:] if row and not self.is_done(row)]
            rest = len(lines) - 1 - len(busy[: room - 2])
            shown = [lines[0][0], *busy[: room - 2], f"     ... and {rest} more"]
        else:
            shown = [line for line, _ in lines]
        return Text.from_ansi("\n".join(shown), no_wrap=True, overflow="ellipsis")

    def _lines(self) -> list[tuple[str, Row | None]]:
        children: dict[str, list[Row]] = {}
        for urn, row in list(self.rows.items()):
            state = steps.state(row.step)
            parent = state.get("parent") or self.stack_urn
            if urn != self.stack_urn:
                children.setdefault(parent if parent in self.rows else self.stack_urn, []).append(
                    row
                )
        table: list[tuple[list[str], Row | None]] = [
            ([*_HEAD[:3], "Plan" if self.style.preview else "Status", "Info"], None)
        ]

        def visible(row: Row) -> bool:
            return not row.hidden or any(map(visible, children.get(row.step["urn"], [])))

        def below(row: Row) -> list[Row]:
            return [r for r in children.get(row.step["urn"], []) if visible(r)]

        if root := self.rows.get(self.stack_urn):
            for lead, _, row in branches(root, below):
                columns = self.columns(row)
                columns[1] = lead + columns[1]
                table.append((columns, row))
        if not any(columns[4] for columns, _ in table[1:]):
            table[0][0][4] = ""
        lengths = [[Text.from_ansi(c).cell_len for c in columns] for columns, _ in table]
        widths = [max(row[i] for row in lengths) for i in range(5)]
        return [
            ("".join(
                f"{' ' if i == 0 else ''}{cell}{' ' * (widths[i] - length + 2)}"
                for i, (cell, length) in enumerate(zip(columns, sizes, strict=True))
            ).rstrip(), row)
            for (columns, row), sizes in zip(table, lengths, strict=True)
        ]  # fmt: skip
