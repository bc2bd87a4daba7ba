"""`slurmstack job pull`: nodes fetch images before a job needs them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from on_node.kubernetes.job_file import image_of
from operations.cluster import Cluster
from operations.pods_program import said
from operations.refused import Refused
from settings.hostlist import fold


@dataclass(frozen=True)
class Fetched:
    """What became of one image on one node."""

    node: str
    image: str
    there: bool
    #: Seconds that it took, or why it is not there.
    words: str


def pull(
    cluster: Cluster, images: Sequence[str], nodes: Sequence[str], seconds: int
) -> list[Fetched]:
    """Have nodes fetch images; the controller asks Kubernetes for it.

    Args:
        cluster: whose.
        images: with a registry that the settings allow, and a tag or a digest.
        nodes: compute nodes.
        seconds: within which they are there.

    Raises:
        Refused: an image that no job may have; Kubernetes does not answer.
        ContactError: the controller cannot be asked.
    """
    bridge = cluster.settings.kubernetes_bridge
    if bridge is None or bridge.pods is None:
        raise Refused(
            f"stack {cluster.stack} runs no pods: set slurmstack:kubernetesBridge.pods "
            "and run pulumi up"
        )
    registries = [it.name for it in bridge.registries]
    for text in images:
        image = image_of(text)
        if image is None or image.registry not in registries:
            raise Refused(
                f"{text}: expected an image of {' or '.join(registries)} with a tag or a digest"
            )
    words = (str(seconds), ",".join(nodes), ",".join(images))
    told = said(cluster, "pull", *words, seconds=seconds + 60)
    lines = (line.split("|") for line in told)
    return [Fetched(node, image, verdict == "pulled", why) for node, image, verdict, why in lines]


def lines(told: Sequence[Fetched]) -> list[str]:
    """A line for nodes alike."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for it in told:
        alike[it.image, "is there" if it.there else f"failed: {it.words}"].append(it.node)
    return [f"{fold(nodes)}: {image}: {what}" for (image, what), nodes in alike.items()]
