"""Does the one bad thing that `misbehaving:how` names."""

import os
import sys
import time

import pulumi
from pulumi_command import local

how = pulumi.Config().require("how")
local.Command("before", create="echo before")
print("said on stdout", flush=True)
print("said on stderr", file=sys.stderr)
if how == "raise":
    raise ValueError("this went wrong")
if how == "run-error":
    raise pulumi.RunError("a message for the user")
if how == "exit":
    sys.exit(7)
if how == "die":
    os._exit(9)
if how == "twice":
    local.Command("before", create="echo twice")
if how == "invoke":
    local.run_output(command="true")
if how == "transform":
    pulumi.runtime.register_resource_transform(lambda args: None)
if how == "get":
    local.Command.get("other", "some-id")
if how == "asset":
    local.Command("asset", create="true", triggers=[pulumi.StringAsset("text")])
if how == "import":
    local.Command("imported", create="true", opts=pulumi.ResourceOptions(import_="some-id"))
if how == "hang":
    time.sleep(600)
