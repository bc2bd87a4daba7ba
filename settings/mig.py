"""MIG instances of a node class: ``slurmstack:nodes[].mig``.

Facts are from NVIDIA's MIG User Guide: "MIG Device Names" for the names of profiles, "Supported MIG
Profiles" for how many of each a GPU takes, and "Getting Started with MIG", Creating GPU Instances,
for placements (``nvidia-smi mig -lgipp``) and the order in which they are made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from settings.base import matching
from settings.problems import Problem

#: Number before ``g`` → memory slices of a GPU that has eight: the sizes of placements. Of 1g there
#: are profiles with twice the memory, too.
_MEMORY = {1: 1, 2: 2, 3: 4, 4: 4, 7: 8}
#: What a GPU has of each: seven compute slices and eight memory slices.
COMPUTE_SLICES, MEMORY_SLICES = 7, 8
_PROFILE = re.compile(r"([0-9]+)g\.([0-9]+)gb(\+me)?", re.ASCII)
_RANGES = r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*"
#: No node has more GPUs; a range beyond is a slip.
_MOST = 64


def _profile(value: str) -> str:
    parts = _PROFILE.fullmatch(value)
    if parts is None or int(parts[1]) not in _MEMORY or int(parts[2]) < 1:
        raise ValueError(
            "a MIG profile of 1, 2, 3, 4 or 7 compute slices, such as 3g.40gb or 1g.10gb+me"
        )
    return value


def _ranges(value: str) -> str:
    for first, last in _pairs(value):
        if not first <= last < _MOST:
            raise ValueError(f"numbers of GPUs from 0 to {_MOST - 1}, such as 0-3 or 0,2-3")
    return value


Profile = Annotated[str, AfterValidator(_profile)]
Indices = Annotated[
    str,
    matching(_RANGES, "numbers of GPUs as nvidia-smi counts them, such as 0-3 or 0,2-3"),
    AfterValidator(_ranges),
]
Instances = Annotated[
    dict[Profile, Annotated[int, Field(ge=1, le=COMPUTE_SLICES)]], Field(min_length=1)
]
#: GPUs → profile → how many instances of it on each of them. GPUs that are not named are whole.
Mig = dict[Indices, Instances]


def _pairs(ranges: str) -> Iterator[tuple[int, int]]:
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        yield int(first), int(last or first)


def indices(ranges: str) -> list[int]:
    """The GPUs of a range list, in its order."""
    return [index for first, last in _pairs(ranges) for index in range(first, last + 1)]


def compute_slices(profile: str) -> int:
    """The number before ``g``."""
    return int(profile.partition("g")[0])


def _memory(profile: str) -> int:
    return int(profile.partition(".")[2].partition("gb")[0])


def geometry(mig: Mapping[str, Mapping[str, int]]) -> dict[int, tuple[str, ...]]:
    """GPU → its instances, in the order in which they are made.

    3g comes first: nvidia-smi finds no place for it behind others (MIG User Guide, Instance
    Geometry, example 2). The others follow by size.
    """
    gpus: dict[int, tuple[str, ...]] = {}
    for ranges, instances in mig.items():
        profiles = sorted(
            (profile for profile, count in instances.items() for _ in range(count)),
            key=lambda it: (compute_slices(it) != 3, -compute_slices(it), -_memory(it), it),
        )
        gpus |= dict.fromkeys(indices(ranges), tuple(profiles))
    return dict(sorted(gpus.items()))


def totals(mig: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """Profile → how many a node has of it, on all its GPUs."""
    counts: dict[str, int] = {}
    for profiles in geometry(mig).values():
        for profile in profiles:
            counts[profile] = counts.get(profile, 0) + 1
    return counts


def geometry_text(mig: Mapping[str, Mapping[str, int]]) -> str:
    """The file that a node has: a line for each GPU that is cut, its number and its instances."""
    lines = [f"{index} {' '.join(profiles)}\n" for index, profiles in geometry(mig).items()]
    return "# MIG instances by slurmstack, GPU by GPU; one that has no line is whole.\n" + "".join(
        lines
    )


def problems(mig: Mapping[str, Mapping[str, int]], where: str) -> Iterator[Problem]:
    """What no GPU can be cut into, and GPUs that are named twice."""
    owner: dict[int, str] = {}
    for ranges, instances in mig.items():
        path = f"{where}.{ranges}"
        for index in indices(ranges):
            if index in owner:
                other = "again" if owner[index] == ranges else f"already of {owner[index]}"
                yield Problem(path, "each GPU once", f"GPU {index}, {other}")
            owner.setdefault(index, ranges)
        yield from _of_one_gpu(instances, path)


def _of_one_gpu(instances: Mapping[str, int], path: str) -> Iterator[Problem]:
    there = " + ".join(f"{count} × {profile}" for profile, count in instances.items())
    compute = sum(compute_slices(profile) * count for profile, count in instances.items())
    if compute > COMPUTE_SLICES:
        yield Problem(
            path,
            f"at most {COMPUTE_SLICES} compute slices on a GPU (the numbers before g)",
            f"{compute}: {there}",
        )
    memory = sum(_memory_slices(it, instances) * count for it, count in instances.items())
    if memory > MEMORY_SLICES and compute <= COMPUTE_SLICES:
        yield Problem(
            path,
            f"at most {MEMORY_SLICES} memory slices on a GPU, of which 1g takes 1, 2g 2, 3g and 4g "
            "4, 7g 8 (MIG User Guide, Supported MIG Profiles)",
            f"{memory}: {there}",
        )
    extended = sum(count for profile, count in instances.items() if profile.endswith("+me"))
    if extended > 1:
        yield Problem(
            path,
            "one instance with media extensions (+me) on a GPU (MIG User Guide, Supported MIG "
            "Profiles)",
            f"{extended}: {there}",
        )


def _memory_slices(profile: str, beside: Mapping[str, int]) -> int:
    """Of eight. 1g has two where the GPU's other instances show that its slice is half as large."""
    compute, memory = compute_slices(profile), _memory(profile)
    # The size of a slice of this GPU, rounded down as names are; 1g alone does not tell it.
    sizes = [_memory(it) / _MEMORY[compute_slices(it)] for it in beside]
    doubled = compute == 1 and memory >= 1.8 * min(sizes)
    return 2 if doubled else _MEMORY[compute]
