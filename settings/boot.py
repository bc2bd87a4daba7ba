"""``slurmstack:boot``: what compute nodes need of their kernel and of how they are booted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from settings.base import HostList, Model, matching
from settings.duration import Duration

#: What neither a shell nor GRUB, both of which read it, takes for anything but itself.
Parameter = Annotated[
    str,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9_.,:=/@%+-]*",
        "one word of the kernel's command line without quotes and blanks, such as iommu=pt",
    ),
]
SysctlName = Annotated[
    str, matching(r"[a-z0-9_]+([./][A-Za-z0-9_:@-]+)+", "a name such as vm.max_map_count")
]


def _value(value: object) -> object:
    """Numbers as text; YAML's yes and no are neither."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


SysctlValue = Annotated[
    str,
    BeforeValidator(_value),
    matching(
        r"[A-Za-z0-9_.,:/+|%-]+([ \t][A-Za-z0-9_.,:/+|%-]+)*",
        'a number, or text on one line such as "4096 87380 67108864"',
    ),
]


KernelModule = Annotated[
    str, matching(r"[A-Za-z0-9][A-Za-z0-9_-]*", "the name of a module, such as ib_ipoib")
]


def _word(value: object) -> object:
    """YAML reads ``on`` and ``off`` as true and false."""
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class HugePages(Model):
    """``slurmstack:boot.hugePages``."""

    size: Literal["2M", "1G"] = "2M"
    #: Pages of a node.
    count: Annotated[int, Field(ge=1, le=4_194_304)]


class Boot(Model):
    """``slurmstack:boot``."""

    #: Host list; left out, all compute nodes.
    hosts: HostList | None = None
    #: Words of the kernel's command line. An empty list takes back those that were given.
    kernel_parameters: tuple[Parameter, ...] | None = None
    #: What becomes of the IOMMU, in the words of the node's kind of CPU.
    iommu: Annotated[Literal["on", "off", "passthrough"] | None, BeforeValidator(_word)] = None
    #: Name → value.
    sysctl: dict[SysctlName, SysctlValue] = Field(default_factory=dict)
    huge_pages: HugePages | None = None
    #: How the frequency of the CPUs is governed.
    cpu_governor: (
        Literal["performance", "powersave", "ondemand", "conservative", "schedutil"] | None
    ) = None
    #: Whether PCIe bridges may redirect what devices send each other: ``off``, they do not.
    acs: Annotated[Literal["off"] | None, BeforeValidator(_word)] = None
    #: Modules of the kernel that are loaded at each boot.
    modules: tuple[KernelModule, ...] = ()
    #: Whether nodes are rebooted where the command line of their kernel is another.
    reboot: Literal["asNeeded", "never"] = "asNeeded"
    #: Seconds that a node may take to come back.
    boot_timeout: Annotated[Duration, Field(ge=60, le=7200)] = 1800

    @property
    def values(self) -> dict[str, str]:
        """Name → value of what sysctl sets, huge pages of 2 MiB among them."""
        pages = self.huge_pages
        small = pages is not None and pages.size == "2M"
        return {
            **self.sysctl, **({"vm.nr_hugepages": str(pages.count)} if pages and small else {}),
        }  # fmt: skip

    @property
    def tunes(self) -> bool:
        """Whether there is something that needs no boot."""
        return bool(self.values or self.cpu_governor or self.acs or self.modules)

    @property
    def parameters(self) -> tuple[tuple[str, str], ...] | None:
        """(Vendor of the CPU or ``any``, word) of the command line; None: it is none of ours."""
        pages = self.huge_pages
        big = pages is not None and pages.size == "1G"
        if self.kernel_parameters is None and self.iommu is None and not big:
            return None
        words = [("any", word) for word in self.kernel_parameters or ()]
        if pages is not None and big:
            words += [("any", "hugepagesz=1G"), ("any", f"hugepages={pages.count}")]
        return tuple(dict.fromkeys([*words, *_IOMMU[self.iommu or ""]]))


#: Setting → words of the command line by vendor (as /proc/cpuinfo has it), from the kernel's
#: "The kernel's command-line parameters": AMD's IOMMU is on unless it is switched off.
_IOMMU: dict[str, tuple[tuple[str, str], ...]] = {
    "": (),
    "on": (("GenuineIntel", "intel_iommu=on"),),
    "off": (("GenuineIntel", "intel_iommu=off"), ("AuthenticAMD", "amd_iommu=off")),
    "passthrough": (("GenuineIntel", "intel_iommu=on"), ("any", "iommu=pt")),
}
