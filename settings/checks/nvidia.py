"""``slurmstack:nvidia``: versions that fit each other, and the GPUs that they are for.

Sources: for the kernel modules, "NVIDIA Transitions Fully Towards Open-Source GPU Kernel Modules"
(NVIDIA's technical blog, July 2024); for CUDA, "CUDA Compatibility", Minor Version Compatibility,
table 1; for the fabric manager, the README of NVIDIA's packaging of it ("the version of
fabricmanager must match the NVIDIA driver installed").
"""

from __future__ import annotations

from collections.abc import Iterator

from settings.checks.draft import Draft
from settings.checks.drivers import changed_drained, compute_nodes, package_files
from settings.gres import real_gpus
from settings.hostlist import expand
from settings.nvidia import NVIDIA_RENAMED, Nvidia, numbers, upstream
from settings.problems import Problem

#: Types of GPUs that the proprietary modules do not know (Grace Hopper, Blackwell), and those that
#: the open ones do not (Maxwell, Pascal, Volta).
OPEN_ONLY = {"gh200", "b200", "b300", "gb200", "gb300"}
PROPRIETARY_ONLY = {"m40", "m60", "p4", "p40", "p100", "v100"}
#: Major version of CUDA → the oldest driver for all of its minor ones.
OLDEST_DRIVER = {11: (450, 80, 2), 12: (525,), 13: (580,)}


def nvidia(draft: Draft) -> Iterator[Problem]:
    """Nodes that there are, packages that have names, files that are used."""
    stack, path = draft.part("nvidia", Nvidia), draft.path("nvidia")
    if stack is None:
        return
    yield from compute_nodes(draft, f"{path}.hosts", stack.hosts)
    if stack.fabric_manager is not None:
        yield from compute_nodes(draft, f"{path}.fabricManager.hosts", stack.fabric_manager.hosts)
    driver = stack.driver
    if driver.names == "nvidia" and driver.branch >= NVIDIA_RENAMED and not driver.packages:
        expected = f"the packages; NVIDIA's own are not known here from {NVIDIA_RENAMED} on"
        yield Problem(f"{path}.driver.packages", expected, "nothing")
    yield from package_files(path, stack.package_files, stack.versions)
    yield from changed_drained(draft, "nvidia")


def nvidia_versions(draft: Draft) -> Iterator[Problem]:
    """Versions that do not work together."""
    stack, path = draft.part("nvidia", Nvidia), draft.path("nvidia")
    if stack is None:
        return
    driver, manager = stack.driver, stack.fabric_manager
    if manager is not None and upstream(manager.version) != driver.upstream:
        yield Problem(
            f"{path}.fabricManager.version",
            f"{driver.upstream}, the driver's (NVIDIA: the version of the fabric manager must "
            "match the driver's)",
            manager.version,
        )
    for at, cuda in enumerate(stack.cuda):
        oldest = OLDEST_DRIVER.get(int(cuda.partition(".")[0]))
        if oldest is None:
            known = ", ".join(f"{major}.x" for major in OLDEST_DRIVER)
            yield Problem(f"{path}.cuda[{at}]", f"one of {known}, whose drivers are known", cuda)
        elif numbers(driver.version) < oldest:
            words = ".".join(f"{part:02}" for part in oldest)
            yield Problem(
                f"{path}.driver.version",
                f"{words} or newer, which CUDA {cuda} needs (NVIDIA, CUDA Compatibility, table 1)",
                driver.version,
            )


def nvidia_modules(draft: Draft) -> Iterator[Problem]:
    """Kernel modules that know the GPUs."""
    stack = draft.part("nvidia", Nvidia)
    if stack is None:
        return
    wrong = {"open": PROPRIETARY_ONLY, "proprietary": OPEN_ONLY}[stack.driver.modules]
    other = {"open": "proprietary", "proprietary": "open"}[stack.driver.modules]
    named = None if stack.hosts is None else {*expand(stack.hosts)}
    for index, node_class in draft.classes:
        if named is not None and not named & {*node_class.names}:
            continue
        types = {(gpu.type or "").lower() for gpu in real_gpus(node_class.Gres)}
        if node_class.hardware is not None and node_class.hardware.gpus.type:
            types.add(node_class.hardware.gpus.type)
        if found := sorted(types & wrong):
            yield Problem(
                draft.path("nvidia.driver.modules"),
                f"{other} for {', '.join(found)} of nodes[{index}] (NVIDIA, open kernel modules)",
                stack.driver.modules,
            )
