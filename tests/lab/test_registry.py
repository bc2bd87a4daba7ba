"""The registry for docker:// names: docker-registry as the distribution has it, and Skopeo as what
builds and fetches."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from tests.lab import artifacts, hub
from tests.lab.conftest import RunningLab, await_that
from tests.lab.secret_search import Secrets, here, journal, marks, on_node, watching

pytestmark = pytest.mark.lab

FOLDER = "/etc/docker/registry/slurmstack"
PASSWORD = f"{FOLDER}/password"
MIRRORED = "hub.example"
#: One with a login; what it is first given is not the password.
SHUT = "shut.example"
WRONG = f"not-{token_hex(12)}"
LOGIN = f"{FOLDER}/slurmstack-registry-mirror-{SHUT}.login.yml"
#: Skopeo reads a policy of its package; what it asks is the system's store and registries.conf.d.
INSTALL = (
    "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends skopeo {more}"
)
ROOT = "/opt/containers"
TESTS = [
    {"run": 'test "$SAID" = "it\'s the base\'s" && test $(id -u) != 0 && busybox true'},
    {"run": "sh /etc/rc sh -c 'pwd; echo $0' | busybox tr '\\n' ' '"},
]


def image(folder: Path, content: dict[str, bytes], config: dict[str, Any] | None = None) -> str:
    """Write an OCI image (image-layout.md) of one layer into a folder; the layer's digest.

    Args:
        folder: is made.
        content: path → bytes, to be run where they are a program; `->PATH` is a link.
        config: Env, WorkingDir, Entrypoint, Cmd.
    """
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for path, held in content.items():
            entry = tarfile.TarInfo(path)
            entry.mode = 0o755
            if held.startswith(b"->"):
                entry.type, entry.linkname = tarfile.SYMTYPE, held[2:].decode()
                archive.addfile(entry)
            else:
                entry.size = len(held)
                archive.addfile(entry, io.BytesIO(held))
    kind = "application/vnd.oci.image"
    layer = blob(gzip.compress(plain.getvalue(), mtime=0))
    diff = f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"
    configuration = blob(json.dumps({
        "architecture": "amd64", "os": "linux", "config": config or {},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
        # docker-registry makes a manifest of Docker's first schema of it for who names no format.
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "the test"}],
    }).encode())  # fmt: skip
    manifest = blob(json.dumps({
        "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", **configuration},
        "layers": [{"mediaType": f"{kind}.layer.v1.tar+gzip", **layer}],
    }).encode())  # fmt: skip
    named = {**manifest, "annotations": {"org.opencontainers.image.ref.name": "1"}}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({
        "schemaVersion": 2,
        "manifests": [{"mediaType": f"{kind}.manifest.v1+json", **named}],
    }))  # fmt: skip
    return str(layer["digest"])


class Site:
    """The lab with a registry that mirrors itself, and one with a login, under other names."""

    def __init__(self, lab: RunningLab, folder: Path, other: hub.Hub) -> None:
        self.lab, self.folder, self.hub = lab, folder, other
        self.address = lab.address("ctl")
        # A whole system in one file; the product's busybox, which comes later, wants libraries.
        self.busybox = lab.send("ctl", "cat /bin/busybox", b"")

    def pushed(
        self, name: str, words: str | dict[str, bytes], port: int = 5001,
        config: dict[str, Any] | None = None, kind: str = "v2s2",
    ) -> str:  # fmt: skip
        """What pushing an image says; its layer's digest where it says nothing wrong.

        Args:
            kind: of its manifest, Skopeo's v2s2 (Docker's, which Enroot needs) or oci.
        """
        content = words if isinstance(words, dict) else {"etc/words": words.encode()}
        layer = image(self.folder / name, content, config)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(self.folder / name, name)
        self.lab.send("ctl", "mkdir -p /srv/oci && tar -C /srv/oci -x", packed.getvalue())
        copy = f"oci:/srv/oci/{name}:1 docker://{self.address}:{port}/{name}:1"
        done = self.lab.ssh("ctl", f"skopeo copy --quiet --format {kind} {copy} 2>&1", check=False)
        return done.stdout.strip() if done.returncode else layer

    def login(self, password: str, port: int = 5001, user: str = "push") -> str:
        """What Skopeo says to a password on stdin."""
        words = f"skopeo login --username {user} --password-stdin {self.address}:{port} 2>&1"
        return self.lab.ssh("ctl", f"{password} | {words}", check=False).stdout

    def layer(self, name: str, node: str = "cn01") -> str:
        """The digest of an image's layer as a node fetches it, the layer itself included."""
        script = (
            f"rm -rf /srv/fetched && skopeo copy --quiet docker://{name} dir:/srv/fetched 2>&1 && "
            "sha256sum /srv/fetched/* | cut -d' ' -f1"
        )
        done = self.lab.ssh(node, script, check=False)
        return done.stdout

    def serial(self, port: int) -> str:
        """Of the certificate that a process shows; nothing while it does not answer."""
        ask = f"openssl s_client -connect {self.address}:{port} </dev/null 2>/dev/null"
        return self.lab.ssh("cn01", f"{ask} | openssl x509 -noout -serial", check=False).stdout

    def answers(self, port: int) -> bool:
        ask = f"curl -fsS --max-time 5 -o /dev/null https://{self.address}:{port}/v2/"
        return self.lab.ssh("cn01", ask, check=False).returncode == 0


@pytest.fixture(scope="module")
def site(lab: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    address, before = lab.address("ctl"), lab.settings.read_text()
    for node in ("ctl", "cn01"):
        lab.ssh(node, INSTALL.format(more="docker-registry busybox-static" * (node == "ctl")))
    with hub.running(lab, "ctl", tmp_path_factory.mktemp("hub")) as other:
        made = Site(lab, tmp_path_factory.mktemp("registry"), other)
        login = {"username": other.user, "passwordSecret": "hub"}
        mirrors = {
            MIRRORED: {"url": f"https://{address}:5000", "port": 5010},
            SHUT: {"url": f"https://{other.address}", "port": 5011, "login": login},
        }
        bases = {
            "based": f"{address}:5000#system:1",
            "pinned": f"{address}:5000#system:1",
            "absent": f"{address}:5000#nosuch:1",
            "wrong": f"{address}:5000#system@sha256:{'a' * 64}",
            "away": f"{address}:5999#system:1",
            "shut": f"{other.address}#private:1",
            "mirrored": f"{SHUT}#private:1",
        }
        images = {
            name: {"version": "1", "base": {"docker": base}, "tests": TESTS}
            for name, base in bases.items()
        }
        try:
            lab.secret("registrySecrets.hub", WRONG)
            lab.set(registry={"mirrors": mirrors}, images={"images": images})
            lab.up()
            yield made
        finally:
            lab.settings.write_text(before)
            lab.up()
    # What was pushed is nobody's to throw away; the rest goes.
    assert lab.ssh("ctl", "ls /var/lib/docker-registry/docker/registry/v2/repositories").stdout
    assert lab.ssh("ctl", f"ls -d {FOLDER}", check=False).returncode != 0
    assert "docker-registry" not in lab.ssh("ctl", "ss -ltnp").stdout
    left = "ls /etc/ssl/certs/slurmstack-registry.pem /etc/containers/registries.conf.d/slurm*"
    assert lab.ssh("cn01", left, check=False).stdout == ""
    lab.ssh("ctl", "skopeo logout --all; rm -rf /var/lib/docker-registry/* /srv/oci")
    lab.ssh("ctl", f"rm -rf {ROOT}")
    lab.ssh("cn01", "rm -rf /srv/fetched")


def test_who_has_the_password_pushes_and_all_read(site: Site) -> None:
    assert "authentication required" in site.pushed("shut", "no")
    assert "Succeeded" not in site.login("echo wrong")
    assert "Succeeded" in site.login(f"cat {PASSWORD}")
    # Where all read, nobody writes.
    assert "StatusCode: 405" in site.pushed("closed", "no", port=5000)
    layer = site.pushed("train", "yes")
    assert layer.startswith("sha256:"), layer
    assert layer.removeprefix("sha256:") in site.layer(f"{site.address}:5000/train:1")
    known = site.lab.ssh("cn01", f"curl -fsS https://{site.address}:5000/v2/_catalog").stdout
    assert "train" in json.loads(known)["repositories"]
    # Of the files that hold it, each has one reader.
    shut = f"cd {FOLDER} && stat -c '%a %U:%G' password htpasswd tls/cluster.pem"
    modes = site.lab.ssh("ctl", shut).stdout
    assert modes.splitlines() == [
        "400 root:root", "640 root:docker-registry", "400 docker-registry:root",
    ]  # fmt: skip


def test_a_mirror_is_asked_in_the_place_of_the_other(site: Site) -> None:
    layer = site.pushed("base", "mirrored").removeprefix("sha256:")
    assert layer in site.layer(f"{MIRRORED}/base:1")
    kept = f"ls /var/lib/docker-registry/mirrors/{MIRRORED}/docker/registry/v2/blobs/sha256/*"
    await_that(lambda: layer in site.lab.ssh("ctl", kept, check=False).stdout)


def test_a_mirror_with_a_login_lets_it_be_known_nowhere(site: Site) -> None:
    """Docker Hub, by a docker-registry and tokens that want a password (hub.py)."""
    lab, other = site.lab, site.hub
    lab.send("ctl", "cat >/srv/hub/password", other.password.encode())
    assert "Succeeded" in site.login("cat /srv/hub/password", hub.PORT, other.user)
    layer = site.pushed("private", "for who is let in", port=hub.PORT).removeprefix("sha256:")
    lab.ssh("ctl", f"rm /srv/hub/password; skopeo logout {other.address}")
    assert "unauthorized" in site.layer(f"{other.address}/private:1", "ctl")
    # The mirror, too, is let in by the right password alone, and begins anew with another one.
    assert layer not in site.layer(f"{SHUT}/private:1")
    other.asked.clear()
    secrets = Secrets()
    secrets.add("the hub's password", marks(other.password.encode()))
    with watching() as watched:
        lab.secret("registrySecrets.hub", other.password)
        said = lab.pulumi("preview", "--diff").stdout + lab.up("--diff")
    await_that(lambda: site.answers(5011))
    assert layer in site.layer(f"{SHUT}/private:1")
    assert set(other.asked) == {(other.user, "repository:private:pull")}
    kept = f"ls /var/lib/docker-registry/mirrors/{SHUT}/docker/registry/v2/blobs/sha256/*"
    await_that(lambda: layer in lab.ssh("ctl", kept, check=False).stdout)

    assert on_node(lab, "ctl", secrets) == {LOGIN: "root:640"}
    assert lab.ssh("ctl", f"stat -c %G {LOGIN}").stdout == "docker-registry\n"
    assert on_node(lab, "cn01", secrets) == {}
    told = [said.encode(), journal(lab, "ctl"), lab.pulumi("stack", "export").stdout.encode()]
    assert secrets.named(b"\0".join([*told, *watched.seen])) == []
    folder = lab.lab.folder
    ours = [lab.settings, *(it for it in folder.iterdir() if it.name != "nodes")]
    assert here(secrets, ours) == {}


def test_a_mirror_waits_for_what_it_mirrors(site: Site) -> None:
    """docker-registry asks the other one when it starts, and ends where that does not answer."""
    unit = f"slurmstack-registry-mirror-{SHUT}"
    site.hub.stop()
    site.lab.ssh("ctl", f"systemctl restart {unit}")
    often = f"systemctl show --value -p NRestarts {unit}"
    # systemd gives up what has failed five times in ten seconds.
    await_that(lambda: int(site.lab.ssh("ctl", often).stdout) > 6)
    site.hub.start()
    await_that(lambda: site.answers(5011))


def test_an_image_of_a_registry_is_what_another_one_begins_with(site: Site) -> None:
    lab = site.lab
    system = {
        "bin/busybox": site.busybox,
        "bin/sh": b"->busybox",
        "bin/env": b"->busybox",
        "srv/here/file": b"x",
    }
    config = {
        "Env": ["PATH=/bin", "SAID=it's the base's"],
        "WorkingDir": "/srv/here",
        "Entrypoint": ["/bin/busybox", "env", "OF=the entry point"],
    }
    assert site.pushed("system", system, config=config, kind="oci").startswith("sha256:")
    raw = lab.ssh("ctl", f"skopeo inspect --raw docker://{site.address}:5000/system:1 | sha256sum")
    digest = f"sha256:{raw.stdout.split()[0]}"

    def told(*words: str) -> Any:
        done = lab.run("slurmstack", "image", *words, "--json", "--stack", lab.name)
        return json.loads(done.stdout)

    built = told("build", "based")
    named = f"docker://{site.address}:5000#system"
    assert built["base"] == f"{named}:1 ({digest})"
    (first, second) = told("test", "based")["tests"]
    assert first["passed"], first
    assert (second["passed"], second["words"].split()) == (True, ["/srv/here", "sh"])
    told("publish", "based")
    about = lab.ssh("ctl", f"unsquashfs -cat {ROOT}/based.sqsh etc/slurmstack-image.json").stdout
    assert json.loads(about)["base"] == built["base"]
    assert told("build", "based")["sha256"] == built["sha256"]
    # By its digest it stays that one, whatever becomes of the tag.
    pinned = {"docker": f"{site.address}:5000#system@{digest}"}
    lab.change(lambda it: it["images"]["images"]["pinned"].update(base=pinned))
    lab.up()
    assert told("build", "pinned")["base"] == f"{named}@{digest}"


@pytest.mark.skipif(
    not os.environ.get("SLURMSTACK_TEST_ARTIFACTS"),
    reason="SLURMSTACK_TEST_ARTIFACTS names a folder with Enroot and Apptainer",
)
def test_runtimes_fetch_from_it(site: Site, tmp_path: Path) -> None:
    """By the CA and the mirrors that the product gave the node."""
    lab, kit = site.lab, artifacts.find(tmp_path)
    runtimes = [*kit.enroot, *([kit.apptainer] if kit.real_apptainer else [])]
    for file in runtimes:
        lab.send("cn01", f"cat >/srv/{file.name}", file.read_bytes())
    names = " ".join(f"/srv/{file.name}" for file in runtimes)
    lab.ssh("cn01", f"DEBIAN_FRONTEND=noninteractive apt-get install -y -q {names}")
    places = " ".join(
        f"ENROOT_{it}_PATH=/srv/enroot" for it in ("RUNTIME", "CACHE", "DATA", "TEMP")
    )
    try:
        held = {"5000#train": "yes", "5011#private": "for who is let in"}
        for name, words in held.items():
            fetch = f"mkdir -p /srv/enroot; {places} enroot import -o /srv/x.sqsh docker://"
            fetch += f"{site.address}:{name}:1"
            read = "unsquashfs -cat /srv/x.sqsh etc/words; rm /srv/x.sqsh"
            assert lab.ssh("cn01", f"{fetch} >&2 && {read}").stdout == words
        if kit.real_apptainer:
            lab.ssh("cn01", "test -e /dev/fuse || mknod -m 0666 /dev/fuse c 10 229")
            lab.ssh("cn01", "install -d -o alice /srv/apptainer")
            # root of the lab's machines lacks rights that Apptainer wants of root.
            runs = "cd /srv/apptainer && runuser -u alice -- env HOME=/srv/apptainer apptainer"
            for name in (f"{site.address}:5000/system", f"{MIRRORED}/system"):
                ask = f"{runs} exec docker://{name}:1 sh -c 'echo $SAID'"
                assert lab.ssh("cn01", ask).stdout == "it's the base's\n"
            # Its definition makes the same of the published image.
            text = lab.ssh("ctl", "cat /etc/slurmstack/images/based.def").stdout
            published = lab.send("ctl", f"cat {ROOT}/based.sqsh", b"")
            lab.send("cn01", "cat >/srv/based.def", text.encode())
            lab.send("cn01", f"mkdir -p {ROOT} && cat >{ROOT}/based+1.sqsh", published)
            lab.ssh("cn01", f"{runs} build based.sif /srv/based.def >&2")
            same = "exec {} sh -c 'busybox cat /etc/slurmstack-image.json; echo $SAID'"
            told = {
                lab.ssh("cn01", f"{runs} {same.format(it)}").stdout
                for it in ("based.sif", f"{ROOT}/based+1.sqsh")
            }
            assert len(told) == 1, told
    finally:
        lab.ssh("cn01", "apt-get purge -y -q enroot; rm -rf /srv/enroot /srv/*.deb /srv/x.sqsh")
        if kit.real_apptainer:
            lab.ssh(
                "cn01",
                "apt-get purge -y -q apptainer; rm -rf /srv/apptainer /dev/fuse "
                f"/srv/based.* {ROOT}/based*",
            )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("absent", "its registry has no such image: "),
        ("wrong", "its registry has no such image: "),
        ("away", "its registry cannot be asked: "),
        ("shut", "its registry wants a login that may read it (skopeo login --authfile "),
        ("mirrored", "it holds no /bin/sh"),
    ],
)
def test_a_base_that_cannot_be_had_is_told_in_words(site: Site, name: str, words: str) -> None:
    lab, candidates = site.lab, f"ls -A {ROOT}/.candidates"
    before = lab.ssh("ctl", candidates, check=False).stdout
    done = lab.run("slurmstack", "image", "build", name, "--stack", lab.name, check=False)
    assert done.returncode == 1
    assert words in done.stderr, done.stderr
    assert lab.ssh("ctl", candidates).stdout == before


def test_a_certificate_is_renewed_under_it(site: Site) -> None:
    before = {port: site.serial(port) for port in (5000, 5001, 5010, 5011)}
    assert len({*before.values()}) == 1
    site.lab.ssh("ctl", "/usr/local/lib/slurmstack/registry-certificate renew")
    for port, serial in before.items():
        await_that(lambda port=port, serial=serial: site.serial(port) not in ("", serial))  # type: ignore[misc]
    assert site.layer(f"{site.address}:5000/train:1").count("\n") >= 3
    site.lab.pulumi("preview", "--expect-no-changes")


def test_another_folder_is_refused_while_images_are_in_this_one(site: Site) -> None:
    lab, before = site.lab, site.lab.settings.read_text()
    lab.change(lambda it: it["registry"].update(root="/srv/elsewhere"))
    said = " ".join(lab.up(check=False).split())
    assert "the registry's images lie in /var/lib/docker-registry, and /srv/elsewhere" in said
    lab.settings.write_text(before)
    lab.up()
    assert site.layer(f"{site.address}:5000/train:1").count("\n") >= 3
