"""The registry for docker:// names: docker-registry as the distribution has it, and Skopeo as what
builds and fetches."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab

FOLDER = "/etc/docker/registry/slurmstack"
PASSWORD = f"{FOLDER}/password"
MIRRORED = "hub.example"
#: Skopeo reads a policy of its package; what it asks is the system's store and registries.conf.d.
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends skopeo"


def image(folder: Path, words: str) -> str:
    """Write an OCI image (image-layout.md) of one file into a folder; its layer's digest."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        return {"digest": f"sha256:{digest}", "size": len(content)}

    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        entry = tarfile.TarInfo("etc/words")
        entry.size = len(words)
        archive.addfile(entry, io.BytesIO(words.encode()))
    kind = "application/vnd.oci.image"
    layer = blob(gzip.compress(plain.getvalue(), mtime=0))
    diff = f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"
    config = blob(json.dumps({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff]},
    }).encode())  # fmt: skip
    manifest = blob(json.dumps({
        "schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", **config},
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
    """The lab with a registry that mirrors itself under another name."""

    def __init__(self, lab: RunningLab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.address = lab.address("ctl")

    def pushed(self, name: str, words: str, port: int = 5001) -> str:
        """What pushing an image says; its layer's digest where it says nothing wrong."""
        layer = image(self.folder / name, words)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(self.folder / name, name)
        self.lab.send("ctl", "mkdir -p /srv/oci && tar -C /srv/oci -x", packed.getvalue())
        copy = f"oci:/srv/oci/{name}:1 docker://{self.address}:{port}/{name}:1"
        done = self.lab.ssh("ctl", f"skopeo copy --quiet {copy} 2>&1", check=False)
        return done.stdout.strip() if done.returncode else layer

    def login(self, password: str, port: int = 5001) -> str:
        """What Skopeo says to a password on stdin."""
        words = f"skopeo login --username push --password-stdin {self.address}:{port} 2>&1"
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


@pytest.fixture(scope="module")
def site(lab: RunningLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(lab, tmp_path_factory.mktemp("registry"))
    mirror = {"url": f"https://{made.address}:5000", "port": 5010}
    for node in ("ctl", "cn01"):
        lab.ssh(node, INSTALL)
    with lab.having(registry={"mirrors": {MIRRORED: mirror}}):
        yield made
    # What was pushed is nobody's to throw away; the rest goes.
    assert lab.ssh("ctl", "ls /var/lib/docker-registry/docker/registry/v2/repositories").stdout
    assert lab.ssh("ctl", f"ls -d {FOLDER}", check=False).returncode != 0
    assert "docker-registry" not in lab.ssh("ctl", "ss -ltnp").stdout
    left = "ls /etc/ssl/certs/slurmstack-registry.pem /etc/containers/registries.conf.d/slurm*"
    assert lab.ssh("cn01", left, check=False).stdout == ""
    lab.ssh("ctl", "skopeo logout --all; rm -rf /var/lib/docker-registry/* /srv/oci")
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
    assert json.loads(known) == {"repositories": ["train"]}
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


def test_a_certificate_is_renewed_under_it(site: Site) -> None:
    before = {port: site.serial(port) for port in (5000, 5001, 5010)}
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
