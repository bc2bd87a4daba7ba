"""What of a node's reason is about a job: the time at which it was given tells."""

from __future__ import annotations

from datetime import datetime

import pytest

from on_node.diagnosis.asked import reasons


def at(clock: str) -> float:
    return datetime.fromisoformat(f"2026-11-26T{clock}").timestamp()


@pytest.mark.parametrize(
    ("reason", "start", "end", "about_it"),
    [
        # A prolog fails before the job begins on the node, not after its end.
        ("Prolog error [root@2026-11-26T03:10:00]", at("03:09:58"), 0, True),
        ("Prolog error [root@2026-11-26T03:10:00]", 0, 0, True),
        ("Prolog error [root@2026-11-26T03:10:00]", at("03:00:00"), at("03:09:59"), False),
        ("slurmstack: health: / is full [root@2026-11-26T03:10:00]", at("03:00:00"),
         at("03:09:20"), True),
        ("slurmstack: health: / is full [root@2026-11-26T03:10:00]", at("03:00:00"),
         at("03:02:00"), False),
        ("Not responding [slurm@2026-11-26T03:10:00]", at("03:20:00"), 0, False),
        ("told by nobody", at("03:20:00"), at("03:21:00"), True),
    ],
)  # fmt: skip
def test_a_reason_of_another_time_says_nothing(
    reason: str, start: float, end: float, about_it: bool
) -> None:
    shown = (
        f"NodeName=cn01 State=IDLE+DRAIN AveWatts=0 Reason={reason} \nNodeName=cn02 State=IDLE\n"
    )
    words = reason.partition(" [")[0]
    assert reasons(shown, start, end) == ([("cn01", f"Reason={words}")] if about_it else [])
