"""Generic resources of a node class: GPUs as declared, and how they compare with what is there.

Facts are from gres.conf(5) of Slurm 24.11 and 25.05.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from settings.base import SlurmObject
from settings.hostlist import expand
from settings.problems import Problem

#: PCI ids (vendor:device) → the Type that jobs ask for. From the PCI ID Repository; any other
#: card needs its Type in the settings.
PCI_TYPES = {
    "10de:1db1": "v100",
    "10de:1db4": "v100",
    "10de:1db5": "v100",
    "10de:1db6": "v100",
    "10de:1eb8": "t4",
    "10de:20b0": "a100",
    "10de:20b2": "a100",
    "10de:20b5": "a100",
    "10de:20f1": "a100",
    "10de:2235": "a40",
    "10de:2236": "a10",
    "10de:2330": "h100",
    "10de:2331": "h100",
    "10de:2335": "h200",
    "10de:2684": "rtx_4090",
    "10de:26b5": "l40",
    "10de:26b9": "l40s",
    "10de:27b8": "l4",
    "10de:2901": "b200",
}

#: gres.conf(5): these are parts of a GPU that several jobs hold at once.
SHARED = {"mps", "shard"}

Flag = Literal[
    "CountOnly", "explicit", "one_sharing", "all_sharing", "nvidia_gpu_env", "amd_gpu_env",
    "intel_gpu_env", "opencl_env", "no_gpu_env",
]  # fmt: skip


class Gres(SlurmObject):
    """One kind of generic resource on each node of a class."""

    Name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")] = "gpu"
    #: What jobs ask for (``--gres=gpu:h100:2``). With AutoDetect=nvml it is a part of the name
    #: that NVML gives, spaces as underscores.
    Type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] | None = None
    #: On each node; of mps and shard all of a node together.
    Count: Annotated[int, Field(ge=1)] | None = None
    File: str | None = None
    MultipleFiles: str | None = None
    Cores: str | None = None
    Links: str | None = None
    Flags: tuple[Flag, ...] = ()
    AutoDetect: Literal["nvml", "nvidia", "rsmi", "oneapi", "nrt", "off"] | None = None
    #: vendor:device of each card, in order of the bus: a passthrough configuration.
    pci: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")], ...] = ()
    #: A MIG profile such as 1g.10gb: Count instances of it on each node.
    profile: Annotated[str, Field(pattern=r"^[0-9]+g\.[0-9]+gb(\+me)?$")] | None = None
    #: Nothing real stands behind it: jobs are counted, no device is handed out.
    standIn: bool = False

    @model_validator(mode="after")
    def _holds_together(self) -> Gres:
        problem = next(self._problems(), None)
        if problem:
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        real = [name for name in ("File", "MultipleFiles", "pci") if getattr(self, name)]
        automatic = self.AutoDetect not in (None, "off")
        if self.standIn and (real or automatic):
            yield f"either standIn: true or {(real or ['AutoDetect'])[0]}"
        if len(real) > 1:
            yield f"one of {' and '.join(real)}"
        if self.Name in SHARED:
            if self.Count is None:
                yield f"Count, the number of {self.Name} on a node"
            return
        if self.count is None:
            yield "Count (or File, or pci), which tells how many a node has"
        names = self.devices
        if self.File and self.Count is not None and self.Count != len(names):
            yield f"a Count of {len(names)}, as many as File names (it is {self.Count})"
        if self.pci and self.Count is not None and self.Count != len(self.pci):
            yield f"a Count of {len(self.pci)}, as many as pci names (it is {self.Count})"
        if self.pci and self.Type is None and self.kind_of_pci is None:
            yield f"Type, since {', '.join(sorted(set(self.pci)))} is not one known card"
        if self.Name == "gpu" and not (real or automatic or self.standIn):
            yield "File, pci or AutoDetect, or standIn: true where there is no device"
        if self.profile and self.AutoDetect != "nvml" and not self.MultipleFiles:
            yield "AutoDetect: nvml with a MIG profile (only NVML finds its devices)"
        if self.profile and self.Type not in (None, self.profile):
            yield f"no Type beside the MIG profile {self.profile}, which is the Type"
        if self.Links and len(names) > 1:
            yield "one File beside Links (gres.conf(5): one device a line)"

    @property
    def devices(self) -> tuple[str, ...]:
        """Its device files, where they are named."""
        if self.pci:
            return tuple(f"/dev/nvidia{index}" for index in range(len(self.pci)))
        return expand(self.File) if self.File else ()

    @property
    def kind_of_pci(self) -> str | None:
        kinds = {PCI_TYPES.get(card) for card in self.pci}
        return kinds.pop() if len(kinds) == 1 else None

    @property
    def count(self) -> int | None:
        """How many a node has; None while the settings do not say."""
        return self.Count or len(self.devices) or None

    @property
    def type(self) -> str | None:
        """What jobs ask for behind the name."""
        return self.profile or self.Type or self.kind_of_pci

    @property
    def text(self) -> str:
        """As the Gres parameter of a node has it: ``gpu:h100:8``."""
        return ":".join(part for part in (self.Name, self.type, str(self.count)) if part)


class Gpus(SlurmObject):
    """What a node said of its GPUs."""

    #: Device files, in order of their number.
    files: tuple[str, ...] = ()
    #: The name that the driver gives, of each.
    models: tuple[str, ...] = ()
    #: vendor:device of each display controller of NVIDIA's on the bus, in order.
    pci: tuple[str, ...] = ()
    #: The MIG profile of each instance that stands.
    profiles: tuple[str, ...] = ()

    @property
    def type(self) -> str | None:
        """The one type of all of them, from the driver, else from the bus; None if mixed."""
        kinds: set[str | None] = {type_of(model) for model in self.models}
        kinds = kinds or {PCI_TYPES.get(card) for card in self.pci}
        return kinds.pop() if len(kinds) == 1 else None

    def __str__(self) -> str:
        said = []
        if self.files:
            said.append(f"{len(self.files)} device files ({', '.join(self.files)})")
        if self.models:
            said.append(f"{len(self.models)} × {' and '.join(sorted(set(self.models)))}")
        if self.pci:
            said.append(f"{len(self.pci)} on the bus ({', '.join(sorted(set(self.pci)))})")
        if self.profiles:
            said.append(f"MIG instances {', '.join(self.profiles)}")
        if self.pci and not self.files:
            said.append("but no /dev/nvidia*: no driver is loaded")
        return "; ".join(said) or "no GPU"


def type_of(model: str) -> str:
    """The short type in a driver's name: ``NVIDIA H100 80GB HBM3`` → ``h100``.

    It is a part of NVML's name with underscores, which is how slurmd compares Type.
    """
    text = re.sub(r"^(nvidia|tesla|quadro|geforce|[\s-])+", "", model.lower())
    found = re.match(r"(?:rtx\s+)?(?:pro\s+)?[a-z]*\d+[a-z]*", text)
    return re.sub(r"\s+", "_", found[0] if found else text)


def discovered(gpus: Gpus) -> tuple[Gres, ...]:
    """GRES of a node whose class declares none: its NVIDIA devices, if it has any."""
    if not gpus.files:
        return ()
    numbers = [file.removeprefix("/dev/nvidia") for file in gpus.files]
    return (
        Gres(Name="gpu", Type=gpus.type, File=f"/dev/nvidia[{','.join(numbers)}]")
        if len(numbers) > 1
        else Gres(Name="gpu", Type=gpus.type, File=gpus.files[0]),
    )


def contradictions(
    declared: Sequence[Gres], gpus: Gpus, where: str, node: str | None
) -> Iterator[Problem]:
    """Where the GPUs declared are not those that the node (or its declared hardware) has."""
    wanted = [gres for gres in declared if gres.Name == "gpu" and not gres.standIn]
    if node is None and gpus == Gpus():
        return  # The settings declare the hardware and say nothing of GPUs.
    of_node = f"on {node}: " if node else "in hardware.gpus: "
    found = f"{of_node}{gpus}"
    whole = [gres for gres in wanted if not gres.profile]
    for index, gres in enumerate(declared):
        if gres not in wanted:
            continue
        path = f"{where}.Gres[{index}]"
        if gres.profile:
            if gpus.profiles.count(gres.profile) != gres.count:
                yield Problem(path, f"{gres.text} as declared", found)
            continue
        missing = [file for file in gres.devices if file not in gpus.files]
        if missing:
            yield Problem(path, f"{gres.text} with {', '.join(gres.devices)} as declared", found)
        elif gres.type and gpus.type and gres.type.lower() not in _names(gpus):
            yield Problem(path, f"{gres.text} as declared", found)
        elif gres.pci and gpus.pci and gres.pci != gpus.pci:
            yield Problem(path, f"{gres.text} ({', '.join(gres.pci)}) as declared", found)
    total = sum(gres.count or 0 for gres in whole)
    if whole and total != len(gpus.files) and not any(gres.devices for gres in whole):
        text = ",".join(gres.text for gres in whole)
        yield Problem(f"{where}.Gres", f"{text} as declared", found)


def _names(gpus: Gpus) -> str:
    """All that a declared type may be a part of."""
    names = [re.sub(r"\s+", "_", model.lower()) for model in gpus.models]
    return " ".join([*names, gpus.type or ""])
