"""The two gRPC services that a Pulumi program talks to: ResourceMonitor and Engine.

Takes requests apart and puts answers together; what is done about them is engine.deployment's.
Everything the SDK can ask and this engine has not is refused here by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable
from typing import Any, TypeVar
from urllib.parse import unquote, urlparse

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import engine_pb2_grpc, resource_pb2, resource_pb2_grpc

from engine.deployment import Deployment
from engine.errors import CallError, Unsupported, refuse
from engine.executor import Halted
from engine.goal import Alias, Goal
from engine.state import Properties
from engine.wire import AssetFound, properties_from_wire, properties_to_wire

T = TypeVar("T")
_LIMIT = 400 * 1024 * 1024
_OPTIONS = [("grpc.max_receive_message_length", _LIMIT), ("grpc.max_send_message_length", _LIMIT)]
_FEATURES = [
    *("SECRETS", "RESOURCE_REFERENCES", "ALIAS_SPECS", "DELETED_WITH"),
    # Announced so that the request arrives and is refused here by its name.
    *("REPLACE_WITH", "REPLACEMENT_TRIGGER", "TRANSFORMS", "INVOKE_TRANSFORMS"),
    *("PARAMETERIZATION", "RESOURCE_HOOKS", "ERROR_HOOKS"),
]
_REFUSED = {
    "importId": "import_", "transforms": "transforms", "packageRef": "a parameterized package",
    "hooks": "hooks", "replace_with": "replace_with", "replacement_trigger": "replacement_trigger",
    "envVarMappings": "env_var_mappings", "pluginDownloadURL": "plugin_download_url",
    "hideDiffs": "hide_diffs",
}  # fmt: skip
_SEVERITY = ["debug", "info", "warning", "error"]
Context = Any  # grpc.aio.ServicerContext, whose stubs are not typed


class Monitor(resource_pb2_grpc.ResourceMonitorServicer, engine_pb2_grpc.EngineServicer):
    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._server = grpc.aio.server(options=_OPTIONS)

    async def start(self) -> str:
        """Serve on a loopback port; returns the address."""
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(self, self._server)
        engine_pb2_grpc.add_EngineServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._server.stop(grace=0.1)

    async def _answer(self, work: Awaitable[T], context: Context) -> T:
        """The result of the work; what it raises ends the call and, but for a CallError, the
        deployment."""
        try:
            return await work
        except Halted:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "resource monitor shut down")
        except CallError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        except Exception as error:
            self._deployment.executor.fail_with(error)
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        raise AssertionError("abort raises")

    async def GetDeploymentInfo(self, request: Any, context: Context) -> Any:
        asked = self._deployment.request
        feature = resource_pb2.ResourceMonitorFeature.Value
        return resource_pb2.DeploymentInfo(
            project=asked.project.name, stack=asked.stack, organization=asked.organization,
            config=dict(asked.config), configSecretKeys=sorted(asked.secret_keys),
            dryRun=asked.dry_run, parallel=asked.parallel,
            supportedFeatures=[feature(f"RESOURCE_MONITOR_FEATURE_{name}") for name in _FEATURES],
        )  # fmt: skip

    async def RegisterResource(self, request: Any, context: Context) -> Any:
        return await self._answer(self._register(request), context)

    async def _register(self, request: Any) -> Any:
        registered = await self._deployment.register(self._goal(request))
        resource = registered.resource
        # A component's old outputs may refer to what is not registered yet.
        outputs = properties_to_wire(resource.outputs if request.custom else {})
        return resource_pb2.RegisterResourceResponse(
            urn=resource.urn, id=resource.id, object=outputs, unknown=registered.unknown,
            result=resource_pb2.Result.Name(registered.result),  # type: ignore[arg-type]
        )  # fmt: skip

    async def RegisterResourceOutputs(self, request: Any, context: Context) -> Any:
        async def work() -> Any:
            outputs = self._properties(request.outputs, request.urn)
            await self._deployment.register_outputs(request.urn, outputs)
            return empty_pb2.Empty()

        return await self._answer(work(), context)

    async def SignalAndWaitForShutdown(self, request: Any, context: Context) -> Any:
        self._deployment.done.set()
        await self._deployment.over.wait()
        return empty_pb2.Empty()

    async def Invoke(self, request: Any, context: Context) -> Any:
        async def work() -> Any:
            if request.tok != "pulumi:pulumi:getResource":
                raise refuse(f"the function {request.tok}")
            urn = properties_from_wire(request.args)["urn"]
            found = self._deployment.known(urn)
            if found is None:
                wrong = f"unknown resource {urn}"
                raise CallError(f"invocation of {request.tok} returned an error: {wrong}")
            state = {"urn": found.urn, "id": found.id, "state": found.outputs}
            answer = resource_pb2.ResourceInvokeResponse()
            getattr(answer, "return").CopyFrom(properties_to_wire(state))
            return answer

        return await self._answer(work(), context)

    async def Log(self, request: Any, context: Context) -> Any:
        if not self._deployment.ending:
            severity = _SEVERITY[request.severity]
            report = self._deployment.reports.diagnose
            report(severity, request.message, request.urn, request.ephemeral)
        return empty_pb2.Empty()

    def _properties(self, struct: Any, where: str) -> Properties:
        try:
            found: Properties = properties_from_wire(struct)
        except AssetFound as error:
            raise refuse(f"the {error} in {where}") from None
        return found

    def _goal(self, r: Any) -> Goal:
        where = f"{r.type} {r.name}"
        if r.remote:
            raise refuse(f"the component {where}, which a plugin makes,")
        for attribute, option in _REFUSED.items():
            value = getattr(r, attribute)
            given = value.ByteSize() if attribute in _MESSAGES else value
            if given:
                raise refuse(f"the option {option} of {where}")
        defined = r.deleteBeforeReplaceDefined or r.deleteBeforeReplace
        properties = self._properties(r.object, where)
        dependencies = {k: sorted(v.urns) for k, v in r.propertyDependencies.items()}
        if not dependencies and r.dependencies:
            dependencies = {k: sorted(r.dependencies) for k in properties}
        timeouts = {n: getattr(r.customTimeouts, n) for n in ("create", "update", "delete", "read")}
        return Goal(
            type=r.type, name=r.name, custom=r.custom, inputs=properties, parent=r.parent,
            provider=r.provider or r.providers.get(r.type.split(":")[0], ""),
            providers=dict(r.providers), version=r.version,
            dependencies=sorted(set(r.dependencies)), property_dependencies=dependencies,
            protect=r.protect if r.HasField("protect") else None,
            retain_on_delete=r.retainOnDelete if r.HasField("retainOnDelete") else None,
            delete_before_replace=r.deleteBeforeReplace if defined else None,
            deleted_with=r.deletedWith, ignore_changes=list(r.ignoreChanges),
            replace_on_changes=list(r.replaceOnChanges),
            additional_secret_outputs=list(r.additionalSecretOutputs),
            aliases=[_alias(a) for a in r.aliases] + [Alias(urn=u) for u in r.aliasURNs],
            custom_timeouts={name: _seconds(text) for name, text in timeouts.items() if text},
            source_position=self._position(r.sourcePosition),
        )  # fmt: skip

    def _position(self, position: Any) -> str:
        if not position.uri:
            return ""
        path = unquote(urlparse(position.uri).path)
        root = self._deployment.request.project.root
        return f"project:///{os.path.relpath(path, root)}#{position.line}"


_MESSAGES = {"hooks", "replacement_trigger"}


def _refusing(what: str) -> Any:
    async def method(self: Monitor, request: Any, context: Context) -> Any:
        async def work() -> None:
            raise refuse(what.format(request))

        return await self._answer(work(), context)

    return method


for _name, _what in {
    "Call": "the method {0.tok}",
    "ReadResource": "reading {0.type} {0.name} (get)",
    "RegisterPackage": "the parameterized package {0.name}",
    "RegisterStackTransform": "a stack transform",
    "RegisterStackInvokeTransform": "an invoke transform",
    "RegisterResourceHook": "the resource hook {0.name}",
    "RegisterErrorHook": "the error hook {0.name}",
    "RequirePulumiVersion": "require_pulumi_version",
    "StartDebugging": "debugging a program",
}.items():
    setattr(Monitor, _name, _refusing(_what))


def _alias(alias: Any) -> Alias:
    if alias.urn:
        return Alias(urn=alias.urn)
    s = alias.spec
    return Alias("", s.name, s.type, s.stack, s.project, s.parentUrn, s.noParent)


def _seconds(text: str) -> float:
    """A duration as Go writes it ("1h5m30s"), in seconds. Raises Unsupported on anything else."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    found = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", text)
    if not found or "".join(n + u for n, u in found) != text:
        raise Unsupported(f"the duration {text!r} in custom_timeouts: write it as 10m or 1h30m")
    return sum(float(number) * units[unit] for number, unit in found)
