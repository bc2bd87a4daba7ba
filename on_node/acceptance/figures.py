"""Figures of a node, and what is said against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

#: Units of which less is better.
_LESS = ("us", "s")
_ROUGH = 0.5


class Measured(NamedTuple):
    """One test of this node."""

    test: str
    verdict: str
    figure: float | None = None
    unit: str = ""
    words: str = ""
    #: The settings' name of it.
    key: str = ""


def tolerated(verdict: str, tolerance: float) -> float:
    """Half is enough of what stands in for the real thing: it shares with much else."""
    return min(tolerance, _ROUGH) if verdict == "stand-in" else tolerance


def worse(figure: float, than: float, unit: str, tolerance: float) -> bool:
    """Whether a figure is out of what is tolerated beside another one.

    Args:
        figure, than: of the same unit, greater than 0.
        unit: of times (us, s) less is better.
        tolerance: such as 0.8: of what is better when greater, this part at least.
    """
    return figure > than / tolerance if unit in _LESS else figure < than * tolerance


def better(unit: str, figures: Sequence[float]) -> float:
    """The best of them."""
    return min(figures) if unit in _LESS else max(figures)


def judged(
    found: Sequence[Measured], best: Mapping[str, float], config: Mapping[str, Any]
) -> Iterator[Measured]:
    """What is said against figures: below the least of the settings, or the node's own best."""
    for it in found:
        if it.figure is None:
            continue
        least, was = config["least"].get(it.key), best.get(it.test)
        if least is not None and it.figure < least:
            text = f"{it.figure:g} {it.unit}, at least {least:g} is asked for"
            yield Measured(f"{it.test}, least", "failed", words=text)
        if was is not None and worse(
            it.figure, was, it.unit, tolerated(it.verdict, config["tolerance"])
        ):
            text = f"{it.figure:g} {it.unit}, its best was {was:g}"
            yield Measured(f"{it.test}, baseline", "failed", words=text)
