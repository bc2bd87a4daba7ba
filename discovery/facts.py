"""What compute nodes have: declared in the settings, remembered, or read over SSH before planning.

A fact is never guessed: a node whose hardware is neither declared nor remembered, and that does
not answer, stops the plan with its name. What was read is remembered beside the project in
``.slurmstack/STACK/facts.json``, so that a plan with nothing new contacts no node, and a node
that is down later does not keep the others from being changed.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from remote.contact import ContactError, run_on_hosts, wait_for
from remote.host import Host
from settings import Problem, Settings, SettingsError
from settings.checks.nodes import hardware_problems
from settings.model import Hardware
from templates.rendering import render

#: Seconds within which a node must have answered.
_TIMEOUT = 30.0


class FactsError(Exception):
    """Nodes whose hardware is not known, each with the reason."""


def hardware(
    settings: Settings, hosts: Mapping[str, Host], memory: Path, stack: str
) -> dict[str, Hardware]:
    """Compute node → its hardware.

    Args:
        settings: declared hardware comes from here.
        hosts: how the nodes are reached.
        memory: the file that remembers what was read.
        stack: the stack's name, for the report.

    Raises:
        FactsError: a node has neither declared nor remembered hardware and could not be asked.
        SettingsError: a node has less than the settings offer to jobs.
    """
    known = {
        name: node_class.hardware
        for name, node_class in settings.compute.items()
        if node_class.hardware is not None
    }
    remembered = _recall(memory)
    for name in settings.compute:
        if name not in known and name in remembered:
            known[name] = remembered[name]
    unknown = [name for name in settings.compute if name not in known]
    if unknown:
        answers, failures = _ask({name: hosts[name] for name in unknown})
        if answers:
            _remember(memory, remembered | answers)
        if failures:
            raise FactsError(
                "the hardware of these nodes is not known; bring them back, declare their "
                "hardware under slurmstack:nodes, or take them out of it:\n"
                + "\n".join(f"  - {failure}" for failure in failures)
            )
        known.update(answers)
    for name in filter(settings.gets_driver, known):
        # The GPUs that a node will have: it was asked before the driver was there.
        gpus = known[name].gpus.with_driver
        known[name] = known[name].model_copy(update={"gpus": gpus})
    _compare(settings, known, stack)
    return {name: known[name] for name in settings.compute}


def _ask(hosts: Mapping[str, Host]) -> tuple[dict[str, Hardware], list[str]]:
    """What answered, and why the others did not."""
    script = render("discovery/facts.sh")
    answers = wait_for(run_on_hosts(list(hosts.values()), script, seconds=_TIMEOUT))
    known: dict[str, Hardware] = {}
    failures: list[str] = []
    for name, answer in answers.items():
        if isinstance(answer, ContactError):
            failures.append(str(answer))
            continue
        try:
            known[name] = parse(answer.stdout)
        except (ValidationError, ValueError) as error:
            failures.append(f"{name}: its answer could not be read as hardware: {error}")
    return known, failures


def parse(answer: str) -> Hardware:
    """Hardware from ``KEY=VALUE`` lines, as ``slurmd -C`` prints them.

    Raises:
        ValueError, pydantic.ValidationError: a figure is missing or no number.
    """
    values: dict[str, str] = {}
    gpus: dict[str, list[str]] = {"gpu": [], "gpu_model": [], "gpu_pci": [], "gpu_profile": []}
    for line in answer.splitlines():
        key, separator, value = line.strip().partition("=")
        if key in gpus:
            gpus[key].append(value)
        elif separator and key in Hardware.model_fields and key != "gpus":
            values[key] = value
    gpu_facts = {
        "files": sorted(gpus["gpu"], key=lambda path: int(path.removeprefix("/dev/nvidia"))),
        "models": gpus["gpu_model"],
        "pci": [entry.split()[1] for entry in sorted(gpus["gpu_pci"])],
        "profiles": gpus["gpu_profile"],
    }
    return Hardware.model_validate({**values, "gpus": gpu_facts})


def _compare(settings: Settings, known: Mapping[str, Hardware], stack: str) -> None:
    """Discovered figures against what the classes ask for (declared ones were checked already)."""
    problems: list[Problem] = []
    for index, node_class in enumerate(settings.nodes):
        if node_class.hardware is None:
            for name in node_class.names:
                if name in known:
                    where = f"slurmstack:nodes[{index}]"
                    problems += hardware_problems(node_class, known[name], where, name)
    if problems:
        raise SettingsError(problems, stack)


def _recall(memory: Path) -> dict[str, Hardware]:
    try:
        nodes = json.loads(memory.read_text())
        return {name: Hardware.model_validate(figures) for name, figures in nodes.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, ValidationError) as error:
        raise FactsError(
            f"{memory} cannot be read ({error}); remove it, and the nodes are asked again"
        ) from error


def _remember(memory: Path, nodes: Mapping[str, Hardware]) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(
        {name: nodes[name].model_dump(mode="json") for name in sorted(nodes)}, indent=2
    )
    handle, temporary = tempfile.mkstemp(dir=memory.parent)
    with os.fdopen(handle, "w") as file:
        file.write(text + "\n")
    Path(temporary).replace(memory)
