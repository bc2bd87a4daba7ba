"""All rules, by folder of causes. None depends on the order."""

from __future__ import annotations

from on_node.diagnosis.rule import Rule
from on_node.diagnosis.rules.fabric import FABRIC
from on_node.diagnosis.rules.gpu import GPU
from on_node.diagnosis.rules.node import NODE
from on_node.diagnosis.rules.program import PROGRAM
from on_node.diagnosis.rules.slurm import SLURM

RULES: tuple[Rule, ...] = (*GPU, *FABRIC, *NODE, *SLURM, *PROGRAM)
