"""What a cluster *is*: typed, frozen settings, and the only reader of Pulumi's stack configuration.

``load()`` turns ``Pulumi.STACK.yaml`` into a :class:`Settings`, or raises one
:class:`SettingsError` that lists every mistake with its path in the YAML.
Nothing here knows of Pulumi resources or of SSH.
"""

from settings.load import load, parse
from settings.model import Host, NodeClass, Settings
from settings.problems import Problem, SettingsError

__all__ = ["Host", "NodeClass", "Problem", "Settings", "SettingsError", "load", "parse"]
