"""`slurmstack image …`: container images, on the host that builds them and where they are fetched.

What is done is done by the program on the hosts (on_node/images); here is who is asked for what, in
which order, so that nothing is taken away that somebody uses.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components import history
from components.images.images import LIBRARY, address, fetching, keepers
from on_node.images.registry import Entry
from operations.cluster import Cluster
from operations.refused import Refused
from remote.contact import ContactError
from settings.hostlist import fold
from settings.images import Image, Images, ImageTest

#: Seconds: for a build, for a test beyond its own bound, for what reads whole images.
_BUILD, _MARGIN, _READ = 6 * 3600.0, 600.0, 3600.0
#: Seconds within which nodes for a test must be free.
_FREE = 300
Say = Callable[[str], None]


@dataclass(frozen=True)
class OnNode:
    """What became of an image on one node."""

    node: str
    there: bool
    #: `there`, `fetched`, or why it is not there.
    words: str


def of(cluster: Cluster) -> Images:
    """
    Raises:
        Refused: the stack has no images.
    """
    if cluster.settings.images is None:
        raise Refused(
            f"stack {cluster.stack} has no images: set slurmstack:images and run pulumi up"
        )
    return cluster.settings.images


def image(cluster: Cluster, name: str) -> Image:
    """
    Raises:
        Refused: the settings have none of this name.
    """
    found = of(cluster).images
    if name not in found:
        raise Refused(
            f"{name}: no image of slurmstack:images; there are: {', '.join(sorted(found))}"
        )
    return found[name]


def build(cluster: Cluster, name: str, partition: str = "") -> dict[str, Any]:
    """Make an image's candidate on the build host; as a job where that is a compute node, so that
    nobody's job shares its cores.

    Args:
        cluster: whose.
        name: of the image.
        partition: of the job; left empty, the default one.

    Returns:
        What is known of it (``on_node.images.build``).

    Raises:
        Refused: there is no such image, another build goes on, or a step failed.
        ContactError: the host cannot be asked.
    """
    image(cluster, name)
    words = {"name": name, "who": history.operator()}
    return dict(_worked(cluster, "build", _BUILD, words, partition))


def tried(cluster: Cluster, name: str, say: Say) -> dict[str, Any]:
    """Run an image's tests: on the build host, then those that ask for nodes as jobs.

    Returns:
        What is known of the candidate, with its tests.

    Raises:
        Refused: it is not built, or nodes for a test are not free.
        ContactError: a host cannot be asked.
    """
    tests = image(cluster, name).tests
    seconds = sum(it.timeout for it in tests) + _MARGIN
    known = _worked(cluster, "test", seconds, {"name": name, "who": history.operator()})
    jobs = [it for it in tests if it.nodes]
    # What fails on one host is not tried on many.
    if not jobs or not all(it["passed"] for it in known["tests"]):
        return dict(known)
    return dict(
        _asked(cluster, "tested", _READ, name=name, results=_as_jobs(cluster, known, jobs, say))
    )


def publish(cluster: Cluster, name: str, version: str) -> dict[str, Any]:
    """A tested candidate becomes what its name stands for, or a published version does again.

    Raises:
        Refused: it was not built or not tested, or was changed since.
        ContactError: the build host cannot be asked.
    """
    tests = [] if version else [it.run for it in image(cluster, name).tests]
    of(cluster)
    words = {"name": name, "version": version, "tests": tests, "who": history.operator()}
    return dict(_asked(cluster, "publish", _READ, **words))


def listing(cluster: Cluster, quick: bool) -> dict[str, Any]:
    """All images: the registry's, compared with what was published, and which node has which.

    Raises:
        Refused: the registry cannot be read.
        ContactError: the build host cannot be asked.
    """
    images = of(cluster)
    told = dict(_asked(cluster, "ls", _READ, quick=quick))
    nodes = [*fetching(cluster.settings)]
    files = [it["file"] for it in told["published"]]
    script = f"cd {images.root} 2>/dev/null && ls -1 -- *.sqsh 2>/dev/null; true"
    there: dict[str, list[str]] = {file: [] for file in files}
    silent = []
    for node, reply in cluster.run(nodes, script, 60).items() if nodes and files else ():
        if isinstance(reply, ContactError):
            silent.append(node)
            continue
        for file in {*reply.stdout.split()} & there.keys():
            there[file].append(node)
    for it in told["published"]:
        it["nodes"] = there[it["file"]]
    told["byShare"] = [it for it in keepers(cluster.settings) if it not in nodes]
    told["silent"] = silent
    return told


def pull(cluster: Cluster, name: str, version: str, nodes: Sequence[str]) -> list[OnNode]:
    """Have nodes fetch a published image, before a job needs it.

    Args:
        cluster: whose.
        name: of the image.
        version: left empty, the current one.
        nodes: hosts that keep copies.

    Raises:
        Refused: it is not published, it was changed since, or a node has the registry by a share.
        ContactError: the build host cannot be asked.
    """
    images, settings = of(cluster), cluster.settings
    by_share = [it for it in nodes if it not in fetching(settings)]
    if by_share:
        raise Refused(
            f"{fold(by_share)}: {images.root} is the build host's own, or comes with a share; "
            "nothing is to be fetched"
        )
    told = _asked(cluster, "ls", _READ, quick=False)
    entries = [it for it in told["published"] if it["name"] == name]
    wanted = [it for it in entries if it["version"] == version or (it["current"] and not version)]
    if not wanted:
        known = ", ".join(it["version"] for it in entries) or "none"
        raise Refused(f"{name}: not published{f' as {version}' if version else ''}; "
                      f"published of it: {known}")  # fmt: skip
    (entry,) = wanted
    if entry["wrong"]:
        raise Refused(f"{entry['wrong']}; no node was asked to fetch it")
    # A job that waits may name an old one: what makes room is none of those.
    named = _by_jobs(cluster, told["published"])
    current = {it["file"] for it in told["published"] if it["current"]}
    words = {
        "root": images.root,
        "entry": _plain(entry),
        "url": f"{address(settings)}/{entry['file']}",
        "limit": images.node_limit << 20,
        "stay": sorted(current | {*named}),
    }
    done = _on(cluster, nodes, "pull", words)
    if not entry["current"] or not all(it.there for it in done):
        return done
    # The name changes over when all have it: a job of several nodes finds the same on each.
    words = {"root": images.root, "name": name, "version": entry["version"]}
    return [
        it if pointed.there else pointed
        for it, pointed in zip(done, _on(cluster, nodes, "point", words), strict=True)
    ]


def remove(cluster: Cluster, name: str, version: str) -> tuple[dict[str, Any], list[OnNode]]:
    """Take a version away, in the registry and on nodes.

    Raises:
        Refused: it is not there, others are to stand for its name first, or somebody uses it.
        ContactError: a host cannot be asked, so that nobody knows who uses it.
    """
    of(cluster)
    told = _asked(cluster, "ls", _READ, quick=True)
    users = _users(cluster, told["published"])
    gone = dict(
        _asked(
            cluster, "rm", _READ, name=name, version=version, users=users, who=history.operator()
        )
    )
    return gone, _forgotten(cluster)


def collect(cluster: Cluster, dry: bool) -> tuple[dict[str, Any], list[OnNode]]:
    """Take away what the rule lets go, in the registry and on nodes.

    Raises:
        Refused: Slurm cannot be asked which images jobs name.
        ContactError: a host cannot be asked, so that nobody knows who uses what.
    """
    of(cluster)
    told = _asked(cluster, "ls", _READ, quick=True)
    users = _users(cluster, told["published"])
    done = dict(_asked(cluster, "gc", _READ, users=users, who=history.operator(), dry=dry))
    return done, [] if dry else _forgotten(cluster)


def _plain(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The registry's entry alone."""
    return {key: value for key, value in entry.items() if key in Entry.__dataclass_fields__}


def script(verb: str, words: Mapping[str, Any]) -> str:
    """What a host runs; builds leave room to its daemons."""
    nice = "nice -n 10 " if verb in ("build", "test") else ""
    return (
        f"cd /; umask 022; PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={LIBRARY} "
        f"{nice}python3 -m on_node.images {verb} {shlex.quote(json.dumps(dict(words)))}\n"
    )


def _asked(cluster: Cluster, verb: str, seconds: float, **words: Any) -> Any:
    """What the build host says."""
    return _told(cluster, cluster.settings.image_host, verb, seconds, words)


def _worked(
    cluster: Cluster, verb: str, seconds: float, words: Mapping[str, Any], partition: str = ""
) -> Any:
    """What the build host says that works for minutes."""
    host, settings = cluster.settings.image_host, cluster.settings
    if partition and partition not in settings.partitions:
        known = ", ".join(settings.partitions) or "none"
        raise Refused(f"{partition}: no such partition in the settings; there are: {known}")
    if host not in settings.compute:
        if partition:
            raise Refused(
                f"{host} builds images and runs no jobs; make a compute node slurmstack:images.host"
            )
        return _told(cluster, host, verb, seconds, words)
    at = cluster.controller
    reply = cluster.run([at], job(host, partition, script(verb, words), seconds), seconds)[at]
    if isinstance(reply, ContactError):
        raise reply
    return _answer(host, reply.stdout, reply.stderr, reply.status)


def job(host: str, partition: str, text: str, seconds: float) -> str:
    """What the controller runs so that a compute node runs a script in a job; srun must not read
    what is left of the controller's own.

    Args:
        host: the node.
        partition: empty: the default one.
        text: the script.
        seconds: within which it has begun and ended.
    """
    words = ["srun", f"--nodelist={host}", "--nodes=1", "--ntasks=1", "--job-name=image-build",
             f"--immediate={_FREE}", f"--time={int(seconds) // 60}", "--input=none", "--quiet",
             *([f"--partition={partition}"] if partition else []), "sh", "-c", text]  # fmt: skip
    return f"cd /; {shlex.join(words)}\n"


def _told(cluster: Cluster, host: str, verb: str, seconds: float, words: Mapping[str, Any]) -> Any:
    reply = cluster.run([host], script(verb, words), seconds)[host]
    if isinstance(reply, ContactError):
        raise reply
    return _answer(host, reply.stdout, reply.stderr, reply.status)


def _answer(host: str, out: str, err: str, status: int) -> Any:
    try:
        told = json.loads(out.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (err or out).strip().splitlines()[-1:] or [f"exit {status}"]
        raise Refused(f"{host}: {last[0]}; was pulumi up run with slurmstack:images?") from None
    if status != 0:
        raise Refused(f"{host}: {told.get('refused', f'exit {status}')}")
    return told


def _on(
    cluster: Cluster, nodes: Sequence[str], verb: str, words: Mapping[str, Any]
) -> list[OnNode]:
    """The same of many nodes; one that fails hides no other."""
    found = []
    replies = cluster.run(list(nodes), script(verb, words), _READ) if nodes else {}
    for node, reply in replies.items():
        if isinstance(reply, ContactError):
            found.append(OnNode(node, False, f"{reply.step}: {reply.found}; {reply.remedy}"))
            continue
        try:
            told = _answer(node, reply.stdout, reply.stderr, reply.status)
            found.append(OnNode(node, True, _words(told)))
        except Refused as error:
            found.append(OnNode(node, False, str(error).removeprefix(f"{node}: ")))
    return found


def _words(told: Mapping[str, Any]) -> str:
    gone = told.get("gone", [])
    names = ", ".join(it if isinstance(it, str) else it["file"] for it in gone)
    kept = "; ".join(f"{it['title']} stays, {it['why']}" for it in told.get("kept", []))
    said = [told.get("what", ""), f"took away {names}" if names else "", kept]
    return "; ".join(it for it in said if it)


def _names(published: Iterable[Mapping[str, Any]]) -> list[str]:
    """Files, and links that stand for them."""
    return sorted({name for it in published for name in (it["file"], f"{it['name']}.sqsh")})


def _by_jobs(cluster: Cluster, published: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """File → jobs that name it."""
    words = {"root": of(cluster).root, "names": _names(published), "jobs": True}
    return dict(_told(cluster, cluster.controller, "used", _READ, words))


def _users(cluster: Cluster, published: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """File → who uses it: jobs that name it, and programs on hosts that have it by a share."""
    found = _by_jobs(cluster, published)
    words = {"root": of(cluster).root, "names": _names(published), "jobs": False}
    settings = cluster.settings
    elsewhere = (*fetching(settings), settings.image_host)
    for node in (it for it in keepers(settings) if it not in elsewhere):
        for name, programs in _told(cluster, node, "used", 120, words).items():
            found.setdefault(name, []).extend(f"{it} on {node}" for it in programs)
    return found


def _forgotten(cluster: Cluster) -> list[OnNode]:
    """Nodes take away their copies of what is published no more."""
    told = _asked(cluster, "ls", _READ, quick=True)
    words = {"root": of(cluster).root, "published": [it["file"] for it in told["published"]]}
    done = _on(cluster, fetching(cluster.settings), "forget", words)
    return [it for it in done if it.words or not it.there]


def _as_jobs(
    cluster: Cluster, known: Mapping[str, Any], tests: Sequence[ImageTest], say: Say
) -> list[dict[str, Any]]:
    """The tests that ask for nodes, in the runtime that users have."""
    images, settings = of(cluster), cluster.settings
    most = max(it.nodes for it in tests)
    idle = cluster.ask("timeout 20 sinfo -h -N -t idle -o %N", "sinfo").split()
    free = [it for it in settings.compute if it in idle][:most]
    if len(free) < most:
        raise Refused(f"a test asks for {most} nodes, and {len(free)} are idle; try again, or "
                      "reserve some")  # fmt: skip
    file, fetchers = known["file"], [it for it in free if it in fetching(settings)]
    entry = {**_plain(known), "file": file}
    words = {"root": images.root, "entry": entry, "limit": images.node_limit << 20,
             "url": f"{address(settings)}/{file}"}  # fmt: skip
    try:
        failed = [it for it in _on(cluster, fetchers, "lend", words) if not it.there]
        if failed:
            raise Refused(f"{failed[0].node}: {failed[0].words}")
        return [_as_job(cluster, f"{images.root}/{file}", it, free, say) for it in tests]
    finally:
        _on(cluster, fetchers, "give-back", {"root": images.root, "file": file})


def _as_job(
    cluster: Cluster, path: str, test: ImageTest, free: Sequence[str], say: Say
) -> dict[str, Any]:
    say(f"on {test.nodes} nodes: {test.run}")
    nodes = free[: test.nodes]
    command = step(path, test, nodes, cluster.settings.enroot_pyxis is not None)
    bounded = f"cd /; timeout {test.timeout + _FREE} {command} 2>&1\n"
    reply = cluster.run([cluster.controller], bounded, test.timeout + _FREE + 60.0)
    said = reply[cluster.controller]
    if isinstance(said, ContactError):
        raise said
    last = said.stdout.strip().splitlines()[-1:] or [""]
    return {"run": test.run, "passed": said.status == 0, "words": last[0][:200],
            "nodes": test.nodes}  # fmt: skip


def step(path: str, test: ImageTest, nodes: Sequence[str], pyxis: bool) -> str:
    """The command of a test on nodes.

    Args:
        path: of the image on nodes.
        test: what is run, one task a node.
        nodes: where.
        pyxis: whether Enroot and Pyxis run it; else Apptainer does.
    """
    options = [
        f"--nodelist={fold(nodes)}",
        f"--nodes={test.nodes}",
        f"--ntasks={test.nodes}",
        "--ntasks-per-node=1",
        f"--immediate={_FREE}",
        "--job-name=image-test",
        "--input=none",
        f"--time={-(-test.timeout // 60)}",
    ]
    inside = ["sh", "-c", test.run]
    words = (
        [f"--container-image={path}", *inside] if pyxis else ["apptainer", "exec", path, *inside]
    )
    return shlex.join(["srun", *options, *words])
