"""Makes the resources that its configuration lists: one program for every test of steps.

`graph:resources` is a list of {name, kind, args, options}; a string `${NAME.output}` in args is
that output, `${secret:TEXT}` a secret. `graph:connection` is the connection of remote commands.
"""

import re
from typing import Any

import pulumi
import pulumi_command as command
import pulumi_random as random
from pulumi_command import local, remote

config = pulumi.Config()
made: dict[str, Any] = {}


class Group(pulumi.ComponentResource):
    def __init__(self, name: str, args: dict[str, Any], opts: pulumi.ResourceOptions) -> None:
        super().__init__("test:index:Group", name, args, opts)
        self.args = args


def value(raw: Any) -> Any:
    if isinstance(raw, dict):
        return {k: value(v) for k, v in raw.items()}
    if isinstance(raw, list):
        return [value(v) for v in raw]
    if isinstance(raw, str) and (found := re.fullmatch(r"\$\{secret:(.*)\}", raw, re.S)):
        return pulumi.Output.secret(found[1])
    if isinstance(raw, str) and (found := re.fullmatch(r"\$\{(.+)\.(\w+)\}", raw)):
        return getattr(made[found[1]], found[2])
    return raw


def options(raw: dict[str, Any]) -> pulumi.ResourceOptions:
    raw = dict(raw)
    for key in ("parent", "deleted_with", "provider"):
        if key in raw:
            raw[key] = made[raw[key]]
    if "depends_on" in raw:
        raw["depends_on"] = [made[name] for name in raw["depends_on"]]
    if "aliases" in raw:
        raw["aliases"] = [pulumi.Alias(**a) if isinstance(a, dict) else a for a in raw["aliases"]]
    if "custom_timeouts" in raw:
        raw["custom_timeouts"] = pulumi.CustomTimeouts(**raw["custom_timeouts"])
    return pulumi.ResourceOptions(**raw)


KINDS = {
    "local": local.Command,
    "remote": remote.Command,
    "provider": command.Provider,
    "password": random.RandomPassword,
    "pet": random.RandomPet,
}
for item in config.get_object("resources") or []:
    name, kind = item["name"], item["kind"]
    args = value(item.get("args", {}))
    opts = options(item.get("options", {}))
    if kind == "group":
        made[name] = Group(name, args, opts)
        continue
    if kind == "remote":
        args.setdefault("connection", config.require_object("connection"))
    made[name] = KINDS[kind](name, **args, opts=opts)
for item in config.get_object("resources") or []:
    if item["kind"] == "group":
        outputs = {k: value(v) for k, v in item.get("outputs", {}).items()}
        made[item["name"]].register_outputs(outputs)
for name, raw in (config.get_object("exports") or {}).items():
    pulumi.export(name, value(raw))
