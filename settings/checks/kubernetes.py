"""The bridge to Kubernetes: a server without a token, and names of nodes that are none."""

from __future__ import annotations

from collections.abc import Iterator

from settings.checks.draft import Draft
from settings.kubernetes import KubernetesBridge
from settings.problems import Problem


def pods(draft: Draft) -> Iterator[Problem]:
    """Pods need a token; a token is for pods; names are those of compute nodes."""
    path, token = draft.path("kubernetesBridge.pods"), draft.path("kubernetesToken")
    bridge = draft.part("kubernetes_bridge", KubernetesBridge)
    if bridge is None and "kubernetesBridge" in draft.raw:
        return  # it is reported already
    setting = None if bridge is None else bridge.pods
    if setting is None:
        if "kubernetesToken" in draft.raw:
            yield Problem(path, f"what {token} is for", "nothing")
        return
    if "kubernetesToken" not in draft.raw:
        yield Problem(token, f"the token by which {path}.server knows the bridge", "nothing")
    for name in setting.node_names:
        if name not in draft.compute:
            yield Problem(f"{path}.nodeNames", "a compute node", name)
