"""What a program asks for: the goal that one registration states, and the URNs it could mean."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.state import STACK_TYPE, Properties, urn_name


@dataclass(frozen=True)
class Alias:
    """A former identity: a whole URN, or the parts that were different."""

    urn: str = ""
    name: str = ""
    type: str = ""
    stack: str = ""
    project: str = ""
    parent: str = ""
    no_parent: bool = False


@dataclass
class Goal:
    """One RegisterResource request; the fields are pulumi.ResourceOptions' of these names."""

    type: str
    name: str
    custom: bool
    inputs: Properties
    parent: str = ""
    provider: str = ""
    providers: dict[str, str] = field(default_factory=dict)
    version: str = ""
    dependencies: list[str] = field(default_factory=list)
    property_dependencies: dict[str, list[str]] = field(default_factory=dict)
    protect: bool | None = None
    retain_on_delete: bool | None = None
    delete_before_replace: bool | None = None
    deleted_with: str = ""
    ignore_changes: list[str] = field(default_factory=list)
    replace_on_changes: list[str] = field(default_factory=list)
    additional_secret_outputs: list[str] = field(default_factory=list)
    aliases: list[Alias] = field(default_factory=list)
    custom_timeouts: dict[str, float] = field(default_factory=dict)
    source_position: str = ""

    def inherit(self, parent: Goal) -> None:
        """What a parent's options give to its children."""
        self.deleted_with = self.deleted_with or parent.deleted_with
        if self.protect is None:
            self.protect = parent.protect
        if self.retain_on_delete is None:
            self.retain_on_delete = parent.retain_on_delete
        package = self.type.split(":")[0]
        self.providers = parent.providers | self.providers
        if not self.provider:
            self.provider = self.providers.get(package, "")


def make_urn(stack: str, project: str, parent: str, kind: str, name: str) -> str:
    """The URN of a resource; a parent that is the stack leaves no trace in it."""
    qualified = qualified_type(parent)
    if qualified and qualified != STACK_TYPE:
        kind = f"{qualified}${kind}"
    return f"urn:pulumi:{stack}::{project}::{kind}::{name}"


def qualified_type(urn: str) -> str:
    return urn.split("::", 3)[2] if urn else ""


def former_urns(goal: Goal, stack: str, project: str, renamed: dict[str, str]) -> list[str]:
    """The URNs that the goal's resource may have in the old state, by its own aliases and those
    of its parent; ``renamed`` maps the URN of each resource found by an alias to its old one."""

    def collapse(alias: Alias) -> str:
        if alias.urn:
            return alias.urn
        parent = renamed.get(alias.parent, alias.parent) or goal.parent
        parent = "" if alias.no_parent else parent
        kind, name = alias.type or goal.type, alias.name or goal.name
        return make_urn(alias.stack or stack, alias.project or project, parent, kind, name)

    own = [collapse(alias) for alias in goal.aliases]
    found = list(own)
    if old_parent := renamed.get(goal.parent):

        def inherited(kind: str, name: str) -> str:
            prefix = urn_name(goal.parent)
            if name.startswith(prefix):
                name = urn_name(old_parent) + name[len(prefix) :]
            return make_urn(stack, project, old_parent, kind, name)

        found.append(inherited(goal.type, goal.name))
        for urn in own:
            found.append(inherited(qualified_type(urn).rsplit("$", 1)[-1], urn_name(urn)))
    return list(dict.fromkeys(found))
