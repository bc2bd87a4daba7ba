"""Generic resources of a node class: GPUs as declared, and how they compare with what is there.

Facts are from gres.conf(5) of Slurm 24.11 and 25.05, and from what ``slurmd -G`` 24.11 makes of
real files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from settings.base import SlurmObject, matching
from settings.hostlist import expand
from settings.mig import geometry, totals
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
_FLAGS = {flag.lower(): flag for flag in Flag.__args__}  # type: ignore[attr-defined]
#: What slurmd takes over from the first line of a name: others must say the same.
_ENVIRONMENT_FLAGS = {flag for flag in _FLAGS.values() if flag.endswith("_env")}
#: gres.conf(5): Count takes a suffix, a power of 1024.
_SUFFIXES = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_DEVICES = "device files such as /dev/nvidia[0-7]"
_RANGES = r"\[?\d+(-\d+)?(,\d+(-\d+)?)*\]?"
_CORES = re.compile(rf"{_RANGES}(,{_RANGES})*", re.ASCII)


def _flags(value: Any) -> Any:
    """A list, or a text with commas; Slurm reads flags in any case."""
    if isinstance(value, str):
        value = [word.strip() for word in value.split(",")]
    if isinstance(value, list | tuple):
        return tuple(
            _FLAGS.get(word.lower(), word) if isinstance(word, str) else word for word in value
        )
    return value


class Gres(SlurmObject):
    """Generic resources on each node of a class: one line of gres.conf.

    As there, several entries may have one name and type, each with devices of its own.
    """

    Name: Annotated[
        str,
        matching(r"[A-Za-z][A-Za-z0-9_.-]*", "the name of a resource, such as gpu or fpga"),
    ] = "gpu"
    #: What jobs ask for (``--gres=gpu:h100:2``). With AutoDetect=nvml it is a part of the name
    #: that NVML gives, spaces as underscores.
    Type: (
        Annotated[str, matching(r"[A-Za-z0-9_.-]+", "a type without blanks, such as h100")] | None
    ) = None
    #: On each node; of mps and shard all of a node together, or of the devices that File names.
    Count: (
        Annotated[int, Field(ge=1)]
        | Annotated[str, matching(r"[1-9][0-9]*[KMGTPkmgtp]?", "a number, such as 8 or 40G")]
    ) | None = None
    File: str | None = None
    MultipleFiles: str | None = None
    Cores: str | None = None
    Links: (
        Annotated[
            str, matching(r"-?[0-9]+(,-?[0-9]+)*", "numbers with commas, such as -1,16,16,16")
        ]
        | None
    ) = None
    Flags: Annotated[tuple[Flag, ...], BeforeValidator(_flags)] = ()
    AutoDetect: Literal["nvml", "nvidia", "rsmi", "oneapi", "nrt", "off"] | None = None
    #: vendor:device of each card, in order of the bus: a passthrough configuration.
    pci: tuple[
        Annotated[str, matching(r"[0-9a-f]{4}:[0-9a-f]{4}", "vendor:device, such as 10de:2330")],
        ...,
    ] = ()
    #: A MIG profile such as 1g.10gb: Count instances of it on each node.
    profile: (
        Annotated[str, matching(r"[0-9]+g\.[0-9]+gb(\+me)?", "a MIG profile, such as 1g.10gb")]
        | None
    ) = None
    #: Jobs are told apart by it, and none of it is ever used up (slurm.conf(5), Gres).
    no_consume: bool = False
    #: Nothing real stands behind it: jobs are counted, no device is handed out.
    standIn: bool = False

    @model_validator(mode="before")
    @classmethod
    def _as_in_gres_conf(cls, value: Any) -> Any:
        """Slurm reads the names of parameters in any case, and CPUs as what Cores was called."""
        if not isinstance(value, Mapping):
            return value
        known = {name.lower(): name for name in cls.model_fields} | {"cpus": "Cores"}
        names = [known.get(str(name).lower(), name) for name in value]
        if len(set(names)) < len(names):
            raise ValueError("each parameter once (Slurm reads them in any case; CPUs is Cores)")
        return dict(zip(names, value.values(), strict=True))

    @field_validator("Cores", "Links", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        """``Cores: 3`` and ``Links: -1`` are numbers for YAML."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("Cores")
    @classmethod
    def _numbers(cls, value: str | None) -> str | None:
        if value is not None and not _CORES.fullmatch(value):
            raise ValueError("cores such as 0-15,32-47")
        return value

    @field_validator("File", "MultipleFiles")
    @classmethod
    def _device_files(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                files = expand(value)
            except ValueError:
                files = ()
            if not files or not all(re.fullmatch(r"/[^/].*", file) for file in files):
                raise ValueError(_DEVICES)
        return value

    @model_validator(mode="after")
    def _holds_together(self) -> Gres:
        problem = next(self._problems(), None)
        if problem:
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        real = [name for name in ("File", "MultipleFiles", "pci") if getattr(self, name)]
        if self.standIn and (real or self.automatic):
            yield f"either standIn: true or {(real or ['AutoDetect'])[0]}"
        if len(real) > 1:
            yield f"one of {' and '.join(real)}"
        if self.automatic and self.Name != "gpu" and self.AutoDetect != "nrt":
            yield f"no AutoDetect: {self.AutoDetect} of {self.Name} (slurmd detects GPUs alone)"
        if self.count is None:
            yield (
                f"Count, the number of {self.Name} on a node"
                if self.Name in SHARED
                else "Count (or File, or pci), which tells how many a node has"
            )
        if self.Name in SHARED:
            return
        names = self.devices
        if names and self.Count is not None and self.count != len(names):
            key = real[0]
            yield f"a Count of {len(names)}, as many as {key} names (it is {self.Count})"
        if self.pci and self.Type is None and self.kind_of_pci is None:
            yield f"Type, since {', '.join(sorted(set(self.pci)))} is not one known card"
        if self.Name == "gpu" and not (real or self.automatic or self.standIn):
            yield (
                "File, pci or AutoDetect, or standIn: true where there is no device (slurmd leaves "
                "out a gpu without a file)"
            )
        if self.profile and not (self.AutoDetect == "nvml" or self.MultipleFiles or self.standIn):
            yield "AutoDetect: nvml with a MIG profile (only NVML finds its devices)"
        if self.profile and self.Type not in (None, self.profile):
            yield f"no Type beside the MIG profile {self.profile}, which is the Type"
        if self.Links and len(names) > 1:
            yield "one File beside Links (gres.conf(5): one device a line)"
        if self.Links and self.Links.split(",").count("-1") != 1:
            yield "one -1 in Links, in the place of the device itself (-1,16,16 for the first)"

    @property
    def automatic(self) -> bool:
        """Whether slurmd is to find the devices."""
        return self.AutoDetect not in (None, "off")

    @property
    def sliced(self) -> bool:
        """Whether it is MIG instances: parts of cards, not cards."""
        files = (*self.devices, self.MultipleFiles or "")
        return self.profile is not None or any("/nvidia-caps/" in file for file in files)

    @property
    def is_real_gpu(self) -> bool:
        """Whether it is cards, or slices of cards, and not files that stand for them."""
        return self.Name == "gpu" and not self.standIn

    @property
    def devices(self) -> tuple[str, ...]:
        """Its device files, one for each, where they are named."""
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
        if self.Count is None:
            # MultipleFiles are the files of one device (gres.conf(5)).
            return len(self.devices) or (1 if self.MultipleFiles else None)
        number = str(self.Count).rstrip("KMGTPkmgtp")
        power: int = _SUFFIXES[str(self.Count).removeprefix(number).upper()]
        return int(int(number) * 1024**power)

    @property
    def type(self) -> str | None:
        """What jobs ask for behind the name."""
        return self.profile or self.Type or self.kind_of_pci

    @property
    def kind(self) -> str:
        """What is counted together: ``gpu:h100``."""
        parts = (self.Name, self.type, "no_consume" if self.no_consume else None)
        return ":".join(part for part in parts if part)

    @property
    def text(self) -> str:
        """As the Gres parameter of a node has it: ``gpu:h100:8``."""
        return f"{self.kind}:{self.Count or self.count}"


def node_gres(resources: Sequence[Gres]) -> list[str]:
    """The Gres parameter of a node, ``gpu:h100:8``: alike entries are counted together."""
    alike: dict[str, list[Gres]] = {}
    for resource in resources:
        alike.setdefault(resource.kind, []).append(resource)
    return [
        ones[0].text
        if len(ones) == 1
        else f"{kind}:{sum(resource.count or 0 for resource in ones)}"
        for kind, ones in alike.items()
    ]


def with_instances(
    declared: tuple[Gres, ...] | None, mig: Mapping[str, Mapping[str, int]] | None
) -> tuple[Gres, ...] | None:
    """The GRES of a class with the MIG instances that its GPUs are cut into.

    Args:
        declared: those that the settings write down; None where they leave it to the nodes.
        mig: ``nodes[].mig``; None where nobody cuts.
    """
    if not mig:
        return declared
    written = {gres.profile for gres in declared or ()}
    return (
        *(declared or ()),
        *(
            Gres(profile=profile, Count=count, AutoDetect="nvml")
            for profile, count in totals(mig).items()
            if profile not in written
        ),
    )


def mig_problems(
    resources: Sequence[Gres], mig: Mapping[str, Mapping[str, int]], where: str
) -> Iterator[Problem]:
    """Instances that are written down beside ``mig`` and are others."""
    wanted, counted = totals(mig), dict[str, int]()
    for resource in resources:
        if resource.profile is not None:
            counted.setdefault(resource.profile, 0)
            counted[resource.profile] += resource.count or 0
    for index, resource in enumerate(resources):
        profile = resource.profile
        if profile is None or counted[profile] == wanted.get(profile, 0):
            continue
        if profile in wanted:
            yield Problem(
                f"{where}[{index}].Count",
                f"{wanted[profile]} of {profile} on a node, as mig has it (or no entry: it follows "
                "from mig)",
                str(counted[profile]),
            )
        else:
            yield Problem(f"{where}[{index}].profile", "a profile of mig", profile)


def class_problems(resources: Sequence[Gres], where: str) -> Iterator[Problem]:
    """What no entry gets wrong alone. slurmd and slurmctld end with a fatal error at most of it."""
    names = {resource.Name for resource in resources}
    first: dict[str, Gres] = {}
    automatic: dict[str, int] = {}
    owner: dict[tuple[str, str], int] = {}
    bare: set[str] = set()
    for index, resource in enumerate(resources):
        place = f"{where}[{index}]"
        if resource.Name in SHARED and "gpu" not in names:
            yield Problem(place, f"a gpu beside {resource.Name}, which is a part of one", "none")
        if resource.Name == "gpu" and resource.AutoDetect is not None:
            automatic.setdefault(resource.AutoDetect, index)
            wanted, by = next(iter(automatic.items()))
            if resource.AutoDetect != wanted:
                yield Problem(
                    f"{place}.AutoDetect",
                    f"{wanted} as in [{by}] (slurmd takes one for all GPUs of a node)",
                    resource.AutoDetect,
                )
        if not (resource.devices or resource.MultipleFiles):
            if resource.kind in bare:
                yield Problem(
                    place, "each GRES without devices of its own once", f"{resource.text} again"
                )
            bare.add(resource.kind)
        for device in resource.devices if resource.Name == "gpu" else ():
            if owner.setdefault((resource.Name, device), index) != index:
                yield Problem(
                    f"{place}.File",
                    "each device once",
                    f"{device}, already of [{owner[resource.Name, device]}]",
                )
        other = first.setdefault(resource.Name, resource)
        if (resource.type is None) != (other.type is None):
            yield Problem(
                f"{place}.Type",
                f"a Type for all entries of {resource.Name} or for none (slurm.conf(5))",
                "nothing" if resource.type is None else resource.type,
            )
        with_files = [
            bool(entry.File or entry.MultipleFiles or entry.pci) for entry in (resource, other)
        ]
        if (
            resource.Name not in SHARED
            and with_files[0] != with_files[1]
            and not (resource.automatic or other.automatic)
        ):
            yield Problem(
                place,
                f"File in all entries of {resource.Name} or in none (gres.conf(5))",
                "File" if with_files[0] else "no File",
            )
        if _environment(resource) != _environment(other):
            yield Problem(
                f"{place}.Flags",
                f"the environment flags of the first {resource.Name} "
                f"({', '.join(sorted(_environment(other))) or 'none'})",
                ", ".join(sorted(_environment(resource))) or "none",
            )


def _environment(gpu: Gres) -> set[str]:
    return _ENVIRONMENT_FLAGS & {*gpu.Flags}


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
    def with_driver(self) -> Gpus:
        """What they are once a driver is loaded: a device file for each card on the bus."""
        if self.files or not self.pci:
            return self
        files = tuple(f"/dev/nvidia{number}" for number in range(len(self.pci)))
        return self.model_copy(update={"files": files})

    @property
    def type(self) -> str | None:
        """The one type of all of them, from the driver, else from the bus; None if mixed."""
        kinds: set[str | None] = {type_of(model) for model in self.models}
        kinds = kinds or {PCI_TYPES.get(card) for card in self.pci}
        return kinds.pop() if len(kinds) == 1 else None

    def __str__(self) -> str:
        parts = []
        if self.files:
            parts.append(f"{len(self.files)} device files ({', '.join(self.files)})")
        if self.models:
            parts.append(f"{len(self.models)} × {' and '.join(sorted(set(self.models)))}")
        if self.pci:
            parts.append(f"{len(self.pci)} on the bus ({', '.join(sorted(set(self.pci)))})")
        if self.profiles:
            parts.append(f"MIG instances {', '.join(self.profiles)}")
        if self.pci and not self.files:
            parts.append("but no /dev/nvidia*: no driver is loaded")
        return "; ".join(parts) or "no GPU"


def type_of(model: str) -> str:
    """The short type in a driver's name: ``NVIDIA H100 80GB HBM3`` → ``h100``.

    It is a part of NVML's name with underscores, which is how slurmd compares Type.
    """
    text = re.sub(r"^(nvidia|tesla|quadro|geforce|[\s-])+", "", model.lower())
    short = re.match(r"(?:rtx\s+)?(?:pro\s+)?[a-z]*[0-9]+[a-z]*", text)
    return re.sub(r"\s+", "_", short[0] if short else text)


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


def beyond_cores(declared: Sequence[Gres], threads: int, where: str) -> Iterator[Problem]:
    """Cores that a node does not have: slurmctld ends with a fatal error at them."""
    for index, resource in enumerate(declared):
        highest = max(
            (int(number) for number in re.findall(r"[0-9]+", resource.Cores or "")), default=0
        )
        if highest >= threads:
            yield Problem(
                f"{where}.Gres[{index}].Cores",
                f"cores from 0 to {threads - 1}",
                str(resource.Cores),
            )


def real_gpus(declared: Sequence[Gres] | None) -> tuple[Gres, ...]:
    """Of what a class declares, the GPUs that are cards or slices of cards on the node."""
    return tuple(gres for gres in declared or () if gres.is_real_gpu)


def cards(declared: Sequence[Gres] | None) -> tuple[int, bool]:
    """How many NVIDIA cards a node must have that are given out whole, and whether there may be
    more, which are cut into MIG instances. Of cards that are named by other device files than
    NVIDIA's nothing follows."""
    gpus = real_gpus(declared)
    nvidia = [gpu for gpu in gpus if gpu.AutoDetect not in ("rsmi", "oneapi", "nrt")]
    whole = [
        gpu
        for gpu in nvidia
        if not gpu.sliced and all(_NVIDIA.fullmatch(file) for file in gpu.devices)
    ]
    return sum(gpu.count or 0 for gpu in whole), any(gpu.sliced for gpu in gpus)


def named_devices(declared: Sequence[Gres] | None) -> tuple[str, ...]:
    """The device files that GPUs are declared by."""
    return tuple(
        dict.fromkeys(
            file
            for gpu in real_gpus(declared)
            for file in (*gpu.devices, *(expand(gpu.MultipleFiles) if gpu.MultipleFiles else ()))
        )
    )


def contradictions(
    declared: Sequence[Gres],
    gpus: Gpus,
    where: str,
    node: str | None,
    mig: Mapping[str, Mapping[str, int]] | None = None,
) -> Iterator[Problem]:
    """Where the GPUs declared are not those that the node (or its declared hardware) has. With
    ``mig``, what counts is cards: its instances may be still to be made."""
    wanted = real_gpus(declared)
    if node is None and gpus == Gpus():
        return  # The settings declare the hardware and say nothing of GPUs.
    of_node = f"on {node}: " if node else "in hardware.gpus: "
    has = f"{of_node}{gpus}"
    instances: dict[str, int] = {}
    for gpu in wanted:
        if gpu.profile:
            instances[gpu.profile] = instances.get(gpu.profile, 0) + (gpu.count or 0)
    for index, gres in enumerate(declared):
        if gres not in wanted:
            continue
        path = f"{where}.Gres[{index}]"
        if gres.profile:
            if mig is None and gpus.profiles.count(gres.profile) != instances[gres.profile]:
                yield Problem(path, f"{gres.text} as declared", has)
            continue
        missing = [
            file for file in gres.devices if _NVIDIA.fullmatch(file) and file not in gpus.files
        ]
        if missing:
            yield Problem(path, f"{gres.text} with {', '.join(gres.devices)} as declared", has)
        elif _is_another_card(gres, gpus):
            yield Problem(path, f"{gres.text} as declared", has)
        elif gres.pci and gpus.pci and gres.pci != gpus.pci:
            yield Problem(path, f"{gres.text} ({', '.join(gres.pci)}) as declared", has)
    number, sliced = cards(declared)
    named = any(gpu.devices for gpu in wanted)
    there = len(gpus.files)
    if mig is not None:
        if wanted:
            yield from _other_cards(wanted, number, mig, there, where, has)
        return
    if number and not named and (there < number if sliced else there != number):
        whole = [gpu for gpu in wanted if not gpu.sliced]
        yield Problem(f"{where}.Gres", f"{','.join(node_gres(whole))} as declared", has)


def _other_cards(
    wanted: Sequence[Gres],
    number: int,
    mig: Mapping[str, Mapping[str, int]],
    there: int,
    where: str,
    has: str,
) -> Iterator[Problem]:
    cut = geometry(mig)
    beyond = [index for index in cut if index >= there]
    if beyond:
        gpus = f"GPUs 0 to {there - 1}" if there else "GPUs that are there"
        yield Problem(f"{where}.mig", gpus, f"GPU {', '.join(map(str, beyond))}; {has}")
    elif len(cut) + number != there:
        whole = [gpu for gpu in wanted if not gpu.sliced]
        declared = ",".join(node_gres(whole)) or "no whole GPU"
        yield Problem(
            f"{where}.Gres", f"{declared} beside the {len(cut)} GPUs of mig as declared", has
        )


_NVIDIA = re.compile(r"/dev/nvidia[0-9]+")


def _is_another_card(gres: Gres, gpus: Gpus) -> bool:
    """Whether the type declared cannot be that of the cards.

    slurmd compares Type with the driver's name only where it detects the GPUs; else it is the
    site's own word, and only the name of another known card is a mistake.
    """
    if not gres.type or not gpus.type or gres.sliced:
        return False
    if gres.automatic:
        return gres.type.lower() not in _names(gpus)
    known = {*PCI_TYPES.values()}
    return gres.type in known and gpus.type in known and gres.type != gpus.type


def _names(gpus: Gpus) -> str:
    """All that a declared type may be a part of."""
    names = [re.sub(r"\s+", "_", model.lower()) for model in gpus.models]
    return " ".join([*names, gpus.type or ""])
