"""``slurmstack:boot``: nodes that there are, and words that do not speak against each other."""

from __future__ import annotations

from collections.abc import Iterator

from settings.boot import Boot
from settings.checks.draft import Draft
from settings.checks.drivers import compute_nodes
from settings.problems import Problem
from settings.rollout import Rollout

#: Keys of the settings that have words of the command line of their own.
_OWN = {
    "iommu": ("iommu=", "intel_iommu=", "amd_iommu="),
    "hugePages": ("hugepagesz=", "hugepages=", "default_hugepagesz="),
}


def boot(draft: Draft) -> Iterator[Problem]:
    """Nodes that are compute nodes; parameters that have no key of their own, and come once."""
    part, path = draft.part("boot", Boot), draft.path("boot")
    if part is None:
        return
    yield from compute_nodes(draft, f"{path}.hosts", part.hosts)
    given = {"iommu": part.iommu is not None, "hugePages": part.huge_pages is not None}
    for at, word in enumerate(part.kernel_parameters or ()):
        for key, words in _OWN.items():
            if given[key] and word.startswith(words):
                expected = f"no {word.partition('=')[0]} beside slurmstack:boot.{key}"
                yield Problem(f"{path}.kernelParameters[{at}]", expected, word)
        if word in (part.kernel_parameters or ())[:at]:
            yield Problem(f"{path}.kernelParameters[{at}]", "each parameter once", word)
    if part.huge_pages is not None and "vm.nr_hugepages" in part.sysctl:
        expected = "no vm.nr_hugepages beside slurmstack:boot.hugePages"
        yield Problem(f"{path}.sysctl", expected, "vm.nr_hugepages")
    rollout = draft.part("rollout", Rollout)
    if (
        rollout is not None
        and rollout.drain == "never"
        and part.parameters is not None
        and part.reboot == "asNeeded"
    ):
        yield Problem(
            draft.path("rollout.drain"),
            "asNeeded or always, or slurmstack:boot.reboot: never: no node is rebooted under jobs",
            "never",
        )
