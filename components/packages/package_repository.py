"""PackageRepository: packages that no source of the nodes has, fetched or built once, signed, and
served by one host; and the package sources of every node."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import PurePosixPath

import pulumi

from components.assembly import Assembly, Deployed
from components.bundle_resource import deploy
from components.host import applier
from components.host.precheck import guard
from components.packages.slurm_packages import BASE, HEADERS
from remote.bundle import (
    Bundle,
    Check,
    Command,
    Directory,
    File,
    Group,
    Package,
    Part,
    Unit,
    User,
    Validate,
)
from settings import Settings
from settings.artifact import OPEN, Artifact, PackageFile
from templates.rendering import render

#: The package that Pyxis becomes on the package host.
PYXIS = "slurmstack-pyxis"
ROLE_HOST = "package-host"
ROLE_NODE = "packages"
#: A host has one of them, if any: what installs packages comes after it.
ROLES = (ROLE_HOST, ROLE_NODE)
HOME = "/var/lib/slurmstack-packages"
SCRIPTS = "/usr/local/lib/slurmstack-packages"
SERVICE = "/etc/systemd/system/slurmstack-packages.service"
SOURCES = "/etc/apt/sources.list.d/slurmstack{}.sources"
SITE_SOURCES = "/etc/apt/sources.list.d/slurmstack-site{}.sources"
PREFERENCES = "/etc/apt/preferences.d/slurmstack{}"
#: In the names of the package host's own files: a host that becomes one, or ceases to be, holds
#: both roles for a moment, and a path belongs to one.
HOST_MARK = "-host"
APT_CONF = "/etc/apt/apt.conf.d/60slurmstack"

#: Seconds. Slurm takes 8 minutes on two cores.
_BUILD_TIMEOUT = 4 * 3600
_FETCH_TIMEOUT = 3600


class PackageRepository(pulumi.ComponentResource):
    """Package sources of the cluster: nothing where the distribution has all that is wanted.

    What installs packages on a node depends on its role of this, so that no daemon is touched
    before what is to be installed has been built, checked and published: a failed build changes no
    other role.
    """

    def __init__(self, name: str, assembly: Assembly) -> None:
        super().__init__("slurmstack:components:PackageRepository", name, None, assembly.options)
        self.register_outputs({})
        settings = assembly.settings
        head = package_host(settings)
        served: Deployed | None = None
        for artifact in open_sums(settings):
            pulumi.log.warn(
                f"{artifact.url}: its sha256 is not in the settings yet: `pulumi up` will refuse it"
            )
        if is_served(settings):
            bundle = host_bundle(head, settings)
            needs = assembly.on(head, applier.ROLE)
            served = deploy(assembly, head, bundle, ROLE_HOST, self, needs)
        if served is not None or has_sources(settings):
            for node in assembly.hosts:
                if served is None or node != head:
                    self._sources(assembly, node, served)

    @classmethod
    def assemble(cls, assembly: Assembly) -> None:
        cls("packages", assembly)

    def _sources(self, assembly: Assembly, node: str, served: Deployed | None) -> None:
        settings = assembly.settings
        bundle: Bundle | pulumi.Output[Bundle] = node_bundle(node, settings, None, None)
        depends_on = assembly.on(node, applier.ROLE)
        if served is not None:
            bundle = served.answer.apply(
                lambda answer: node_bundle(
                    node,
                    settings,
                    base64.b64decode(answer.facts["packages-key"]).decode(),
                    answer.facts["packages-index"],
                )
            )
            depends_on.append(served.resource)
        deploy(assembly, node, bundle, ROLE_NODE, self, depends_on)


def package_host(settings: Settings) -> str:
    """The host that fetches, builds and serves packages."""
    return settings.packages.host or settings.roles.controller


def has_sources(settings: Settings) -> bool:
    """Whether nodes need package sources or preferences even if nothing is served."""
    return settings.packages.repository is not None or settings.packages.release is not None


def is_served(settings: Settings) -> bool:
    """Whether there are packages to serve."""
    return (
        settings.packages.slurm == "source"
        or settings.enroot_pyxis is not None
        or bool(package_files(settings))
    )


def package_files(settings: Settings) -> list[PackageFile]:
    """Package files that are served as they are."""
    files: list[PackageFile] = []
    if settings.enroot_pyxis is not None:
        files += settings.enroot_pyxis.enroot.packages
    if settings.apptainer is not None:
        files += settings.apptainer.packages
    monitoring = settings.monitoring
    if monitoring is not None and monitoring.grafana is not None:
        files += [monitoring.grafana.package] if monitoring.grafana.package else []
    if settings.acceptance is not None:
        files += settings.acceptance.package_files
    if settings.nvidia is not None:
        files += settings.nvidia.package_files
    if settings.fabric is not None:
        files += settings.fabric.package_files
    for share in settings.storage.values():
        files += share.package_files
    for software in settings.software.values():
        files += software.package_files
    return list(dict.fromkeys(files))


def open_sums(settings: Settings) -> list[Artifact]:
    """Artifacts whose sum the site has yet to put in."""
    artifacts: list[Artifact] = [*package_files(settings)]
    if settings.packages.archive is not None:
        artifacts.append(settings.packages.archive)
    if settings.enroot_pyxis is not None:
        artifacts.append(settings.enroot_pyxis.pyxis.archive)
    return [artifact for artifact in artifacts if artifact.sha256 == OPEN]


def _common(settings: Settings, sources: list[str], mark: str = "") -> list[Part]:
    """What the package host and the nodes have alike; adds to the sources to be refreshed."""
    parts: list[Part] = []
    if settings.packages.repository is not None:
        text = render("packages/site.sources", repository=settings.packages.repository)
        place = SITE_SOURCES.format(mark)
        parts.append(File(place, text))
        sources.append(place)
    pins = _pins(settings)
    if pins:
        text = render("packages/preferences", pins=pins)
        parts.append(File(PREFERENCES.format(mark), text))
    return parts


def _pins(settings: Settings) -> dict[str, str]:
    """Packages as apt_preferences(5) names them → the version that they are to have.

    Whatever pulls in one package of Slurm, the others and the plugin then follow in the same
    transaction; without this, apt would rather remove the plugin than take one that its version
    does not call newer.
    """
    pins = {}
    if settings.packages.release is not None:
        pins["src:slurm-wlm src:slurm-smd"] = settings.packages.release
    if settings.enroot_pyxis is not None:
        pins[PYXIS] = settings.enroot_pyxis.pyxis.release(settings.packages)
    return pins


def node_bundle(node: str, settings: Settings, key: str | None, index: str | None) -> Bundle:
    """A node's package sources.

    Args:
        node: its name.
        settings: the cluster.
        key: the package host's public key; None where no packages are served.
        index: what is published there, so that a change refreshes the node's package lists.
    """
    sources: list[str] = []
    parts = [guard(node, settings), *_common(settings, sources)]
    if key is not None:
        address = settings.hosts[package_host(settings)].address
        uri = f"http://{address}:{settings.packages.port}/current"
        parts += [
            File(APT_CONF, render("packages/apt.conf", address=address)),
            File(
                SOURCES.format(""),
                render("packages/slurmstack.sources", uri=uri, key=key),
            ),
        ]
        sources.append(SOURCES.format(""))
    if sources:
        text = render("packages/refresh.sh", sources=sources, index=index)
        parts.append(Command("package-lists", text, on=tuple(sources), timeout=300))
    return Bundle(node, ROLE_NODE, [*parts, *apt_reads(parts)])


def host_bundle(node: str, settings: Settings) -> Bundle:
    """The host that fetches, builds and serves: all of it in one bundle, published at the end."""
    sources: list[str] = []
    tools = ["apt-utils", "busybox", "gpg", "gpg-agent"]
    scripts = {"fetch": "fetch.sh", "publish": "publish.sh"}
    steps: list[Command] = []
    published: list[str] = []
    releases: list[str] = []
    parts = [guard(node, settings), *_common(settings, sources, HOST_MARK)]

    for file in package_files(settings):
        steps.append(
            _step(f"fetch-{file.package}", "fetch", [file.url, file.sha256], _FETCH_TIMEOUT)
        )
        published.append(_place(file))
    packages = settings.packages
    if packages.slurm == "source":
        assert packages.archive is not None  # settings were checked
        assert packages.version is not None
        assert packages.release is not None
        tools += ["build-essential", "dpkg-dev", "fakeroot", *packages.build_packages]
        scripts["build-slurm"] = "build-slurm.sh"
        words = [packages.archive.url, packages.archive.sha256, packages.version]
        words += [packages.release, ",".join(sorted(packages.features))]
        steps.append(_step("build-slurm", "build-slurm", words, _BUILD_TIMEOUT))
        published.append("slurm")
        releases.append(f"slurm {packages.release}")
    if settings.enroot_pyxis is not None:
        pyxis = settings.enroot_pyxis.pyxis
        tools += ["gcc", "libc6-dev", "make"]
        scripts["build-spank"] = "build-spank.sh"
        release = pyxis.release(packages)
        words = ["pyxis", pyxis.archive.url, pyxis.archive.sha256, pyxis.version, release]
        words += [HEADERS[packages.naming], BASE[packages.naming], packages.release or "-"]
        source = File(f"{SCRIPTS}/environment.c", render("containers/job-environment.c"))
        parts.append(source)
        words.append(source.path)
        steps.append(_step("build-pyxis", "build-spank", words, _BUILD_TIMEOUT))
        published.append("pyxis")
        releases.append(f"{PYXIS} {release}")
    publish = " ".join([f"{SCRIPTS}/publish", *published])
    if releases:
        publish = f"# {', '.join(releases)}\n{publish}"

    address = settings.hosts[node].address
    unit = render("packages/slurmstack-packages.service", address=address, port=packages.port)
    uri = f"file:{HOME}/www/current"
    parts += [
        Group("slurmstack-build"),
        User("slurmstack-build", None, "slurmstack-build"),
        *(Package(tool) for tool in sorted(set(tools))),
        Directory("/var/log/slurmstack-packages"),
        Directory(HOME, ephemeral=True),
        Directory(f"{HOME}/www", ephemeral=True),
        Directory(SCRIPTS),
        *(
            File(f"{SCRIPTS}/{script}", render(f"packages/{template}"), mode="0755")
            for script, template in scripts.items()
        ),
        File(SERVICE, unit),
        File(
            SOURCES.format(HOST_MARK),
            render("packages/slurmstack.sources", uri=uri, key=None),
        ),
        *steps,
        Command(
            "publish",
            publish,
            on=tuple(f"{SCRIPTS}/{script}" for script in scripts),
            timeout=_FETCH_TIMEOUT,
        ),
        Unit(PurePosixPath(SERVICE).name, restart_on=(SERVICE,)),
        Check(
            "packages-are-served",
            f"busybox wget -q -O /dev/null http://{address}:{packages.port}/current/InRelease",
            timeout=20,
        ),
    ]
    return Bundle(node, ROLE_HOST, [*parts, *apt_reads(parts)])


def apt_reads(parts: Sequence[Part]) -> list[Part]:
    """apt reads those of the files that are its own, before they are in place."""
    paths = [part.path for part in parts if isinstance(part, File)]
    read = tuple(path for path in paths if path.startswith("/etc/apt/"))
    return [Validate("apt", render("packages/apt-reads-it.sh"), on=read)] if read else []


def _step(name: str, script: str, words: list[str], timeout: int) -> Command:
    """One call of a script. Settings allow no character in these words that a shell would act
    on but & and ?, so they are quoted."""
    quoted = " ".join(f"'{word}'" for word in words)
    return Command(name, f"{SCRIPTS}/{script} {quoted}", (f"{SCRIPTS}/{script}",), timeout=timeout)


def _place(artifact: Artifact) -> str:
    """Where `fetch` puts it."""
    return f"{HOME}/artifacts/{artifact.sha256}/{artifact.name}"
