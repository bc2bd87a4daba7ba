"""``slurmstack:fabric``: nodes that there are and that Slurm may reboot."""

from __future__ import annotations

from collections.abc import Iterator

from settings.boot import Boot
from settings.checks.draft import Draft
from settings.checks.drivers import changed_drained, compute_nodes, package_files
from settings.fabric import Fabric
from settings.hostlist import expand, fold
from settings.nvidia import Nvidia
from settings.problems import Problem


def fabric(draft: Draft) -> Iterator[Problem]:
    """A changed driver is in the kernel after a boot alone, which only ``boot`` can make."""
    part, path = draft.part("fabric", Fabric), draft.path("fabric")
    if part is None:
        return
    compute = {name for node_class in draft.nodes for name in node_class.names}
    wanted = {*expand(part.hosts)} if part.hosts else compute
    yield from compute_nodes(draft, f"{path}.hosts", part.hosts)
    if "boot" not in draft.raw:
        expected = "slurmstack:boot beside it ({} will do): a changed driver takes a reboot"
        yield Problem(draft.path("boot"), expected, "nothing")
    boot = draft.part("boot", Boot)
    if boot is not None and boot.hosts:
        left_out = sorted(wanted & compute - {*expand(boot.hosts)})
        if left_out:
            expected = f"{fold(left_out)}, too, which slurmstack:fabric is for"
            yield Problem(draft.path("boot.hosts"), expected, boot.hosts)
    yield from package_files(path, part.package_files, dict(part.packages))
    nvidia = draft.part("nvidia", Nvidia)
    if nvidia is not None:
        for name in sorted({*nvidia.versions} & {*part.packages}):
            expected = "each package once: slurmstack:nvidia has it"
            yield Problem(f"{path}.packages.{name}", expected, name)
    yield from changed_drained(draft, "fabric")
