"""Package sources, and what of Slurm, Enroot, Pyxis and Apptainer lands on nodes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from components.accounting.slurmdbd import database_bundle
from components.compute.compute_node import compute_bundle
from components.configuration.served_files import task_prolog
from components.configuration.slurm_conf import slurm_conf
from components.containers.apptainer import apptainer_bundle
from components.containers.enroot_pyxis import ENVIRONMENT, ENVIRONMENT_CONF, PYXIS_CONF, pyxis_conf
from components.controller.slurm_controller import controller_bundle
from components.login.login_node import login_bundle
from components.packages.package_repository import (
    PREFERENCES,
    SCRIPTS,
    SOURCES,
    host_bundle,
    node_bundle,
    package_files,
)
from components.packages.slurm_packages import BASE
from remote.bundle import Bundle, Command, File, Guard, Package, Unit
from settings import Settings, parse
from settings.apptainer_conf import POLICY
from settings.artifact import PackageFile
from settings.model import Hardware
from templates.rendering import render
from tests.unit.components.test_cluster import PACKAGES_KEY, bare, deploy, plain
from tests.unit.settings.test_containers import APPTAINER, CONTAINERS, ENROOT, SHA, SOURCE
from tests.unit.settings.test_every_setting import parts

SHELLCHECK = Path(sys.executable).parent / "shellcheck"
REPOSITORY = {"sources": "Types: deb\nURIs: http://m.example\nSuites: ./", "key": PACKAGES_KEY}
HARDWARE = Hardware(CPUs=2, SocketsPerBoard=1, CoresPerSocket=2, ThreadsPerCore=1, RealMemory=2000)


def compute(node: str, found: Settings) -> Bundle:
    return compute_bundle(node, found, dict.fromkeys(found.compute, HARDWARE))


def settings(**changes: Any) -> Settings:
    return parse({**bare(), **changes})


def named(annotation: Any, path: str = "") -> set[str]:
    """Where settings name package files, by the model: those that are not served are on no node."""
    found = set()
    for part in parts(annotation):
        if part is PackageFile:
            found.add(path)
        elif isinstance(part, type) and issubclass(part, BaseModel):
            for name, info in part.model_fields.items():
                found |= named(info.annotation, f"{path}.{name}")
        for argument in get_args(part):
            found |= named(argument, path)
    return found


def test_every_package_file_of_the_settings_is_served() -> None:
    def deb(name: str) -> dict[str, str]:
        return {"url": f"https://site.example/{name}_3.5.0_amd64.deb", "sha256": SHA}

    found = settings(
        enrootPyxis={**CONTAINERS, "enroot": {"packages": [deb("enroot")]}},
        apptainer={"packages": [deb("apptainer")]},
        monitoring={"grafana": {"package": deb("grafana")}},
        acceptance={"packageFiles": [deb("hpl")]},
        nvidia={
            "driver": {"version": "570.5.0", "packages": ["driver"]},
            "packageFiles": [{**deb("x"), "url": "https://site.example/driver_570.5.0_all.deb"}],
        },
        boot={},
        fabric={
            "version": "24.10-2.1.8",
            "packages": {"ofed": "3.5.0"},
            "packageFiles": [deb("ofed")],
        },
        modules={},
        software={"a/1": {"description": "A", "packageFiles": [deb("htop"), deb("tmux")]}},
        storage={
            "cold": {
                "type": "cephfs",
                "source": "mon:/",
                "mount": "/cold",
                "packageFiles": [deb("ceph-common")],
            }
        },
    )
    assert named(Settings) == {
        ".enroot_pyxis.enroot.packages", ".apptainer.packages", ".monitoring.grafana.package",
        ".acceptance.package_files", ".software.package_files", ".nvidia.package_files",
        ".fabric.package_files", ".storage.package_files",
    }  # fmt: skip
    assert {it.package for it in package_files(found)} == {
        "enroot", "apptainer", "grafana", "hpl", "htop", "tmux", "driver", "ofed",
        "ceph-common",
    }  # fmt: skip


def packages(bundle: Bundle) -> dict[str, str | None]:
    return {part.name: part.version for part in bundle.parts if isinstance(part, Package)}


def files(bundle: Bundle) -> dict[str, str]:
    return {
        part.path: part.content
        for part in bundle.parts
        if isinstance(part, File) and isinstance(part.content, str)
    }


def commands(bundle: Bundle) -> dict[str, str]:
    return {part.name: part.script for part in bundle.parts if isinstance(part, Command)}


def unit(bundle: Bundle, name: str) -> Unit:
    return next(part for part in bundle.parts if isinstance(part, Unit) and part.name == name)


def test_the_distribution_needs_no_names_but_its_own() -> None:
    bundle = compute("cn01", settings())
    assert packages(bundle) == {"slurm-client": None, "slurmd": None}


def test_a_version_is_everybodys() -> None:
    pinned = settings(packages={"version": "24.11.5-4"})
    node = packages(compute("cn01", pinned))
    controller = packages(controller_bundle("ctl", pinned, dict.fromkeys(pinned.compute, HARDWARE)))
    assert node["slurmd"] == controller["slurmctld"] == "24.11.5-4"
    # What apt would choose for a dependency by itself is told, too.
    assert node["slurm-wlm-basic-plugins"] == "24.11.5-4"
    assert (
        "Pin: version 24.11.5-4\n"
        in files(node_bundle("cn01", pinned, None, None))[PREFERENCES.format("")]
    )


def test_the_plugin_follows_whichever_package_brings_slurm() -> None:
    both = settings(packages={"version": "24.11.5-4"}, enrootPyxis=CONTAINERS)
    assert both.enroot_pyxis is not None
    text = files(node_bundle("cn01", both, PACKAGES_KEY, "0"))[PREFERENCES.format("")]
    stanzas = [stanza.splitlines()[1:] for stanza in text.strip().split("\n\n")]
    release = both.enroot_pyxis.pyxis.release(both.packages)
    assert stanzas == [
        ["Package: src:slurm-wlm src:slurm-smd", "Pin: version 24.11.5-4", "Pin-Priority: 1001"],
        ["Package: slurmstack-pyxis", f"Pin: version {release}", "Pin-Priority: 1001"],
    ]
    # A version that is named is not what restarts the daemon: one that it does not run is.
    free = settings(enrootPyxis=CONTAINERS)
    slurmd, unpinned = (unit(compute("cn01", it), "slurmd.service") for it in (both, free))
    assert slurmd.restart_keys == unpinned.restart_keys
    assert "package:slurmd" in slurmd.restart_on


def test_slurm_from_source_replaces_the_distributions_names() -> None:
    built = settings(packages=SOURCE)
    release = built.packages.release
    bundle = compute("cn01", built)
    assert packages(bundle) == dict.fromkeys(
        ("slurm-smd", "slurm-smd-client", "slurm-smd-slurmd"), release
    )
    # SchedMD's packages make no user slurm.
    assert "user slurm 64030 slurm " in bundle.render()
    assert "package:slurm-smd-slurmd" in unit(bundle, "slurmd.service").restart_on


def test_slurmdbd_and_login_nodes_take_the_sources_names() -> None:
    built = settings(packages=SOURCE, accounting={})
    database = database_bundle("ctl", built, "secret")
    assert {"slurm-smd-slurmdbd", "slurm-smd"} <= packages(database).keys()
    assert "package:slurm-smd-slurmdbd" in unit(database, "slurmdbd.service").restart_on
    login = login_bundle("login", built)
    assert {"slurm-smd-sackd", "slurm-smd-client"} <= packages(login).keys()
    for bundle in (database, login):
        assert not [name for name in packages(bundle) if name in ("slurm-client", "sackd")]
        assert any(isinstance(part, Guard) and part.name == "no-step-back" for part in bundle.parts)


def test_containers_can_be_asked_for_on_login_nodes() -> None:
    both = settings(enrootPyxis=CONTAINERS, jobEnvironment={"A": 1})
    bundle = login_bundle("login", both)
    assert PYXIS_CONF in files(bundle)
    # Jobs run elsewhere: neither Enroot nor the jobs' environment.
    assert packages(bundle).keys() == {"slurm-client", "sackd", "slurmstack-pyxis"}
    assert ENVIRONMENT_CONF not in files(bundle)


def test_with_pyxis_a_plugin_gives_jobs_their_environment() -> None:
    """Slurm runs a TaskProlog inside the task's container, where it may not be able to."""
    environment = {"UCX_TLS": "rc,self", "NOTE": """it's "$HOME" = `id`""", "N": 3}
    with_pyxis = settings(enrootPyxis=CONTAINERS, jobEnvironment=environment)
    assert task_prolog(with_pyxis) is None
    assert "TaskProlog" not in slurm_conf(with_pyxis, dict.fromkeys(with_pyxis.compute, HARDWARE))
    found = files(compute("cn01", with_pyxis))
    assert found[ENVIRONMENT].splitlines()[1:] == [
        "N=3", """NOTE=it's "$HOME" = `id`""", "UCX_TLS=rc,self",
    ]  # fmt: skip
    assert found[ENVIRONMENT_CONF].endswith(f"environment.so file={ENVIRONMENT}\n")
    assert ENVIRONMENT_CONF in unit(compute("cn01", with_pyxis), "slurmd.service").restart_on
    source = f"{SCRIPTS}/environment.c"
    assert shlex.split(commands(host_bundle("ctl", with_pyxis))["build-pyxis"])[-1] == source
    assert "slurm_spank_user_init" in files(host_bundle("ctl", with_pyxis))[source]
    assert ENVIRONMENT_CONF not in files(compute("cn01", settings(enrootPyxis=CONTAINERS)))


def test_the_controller_must_know_the_login_nodes() -> None:
    def guards(**changes: Any) -> dict[str, str]:
        found = settings(**changes)
        bundle = controller_bundle("ctl", found, dict.fromkeys(found.compute, HARDWARE))
        return {part.name: part.script for part in bundle.parts if isinstance(part, Guard)}

    hosts = {**bare()["hosts"], "in[1-2]": "10.73.0.[12-13]"}
    with_login = guards(hosts=hosts, roles={"controller": "ctl", "login": "in[1-2]"})
    (name,) = set(with_login) - set(guards())
    script = with_login[name].replace("in1 in2", "localhost there.invalid")
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("cannot resolve there.invalid: slurmctld")


def ran(script: str, programs: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A script's end, where these programs (name → text) stand in for the host's."""
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return subprocess.run(
        ["sh", "-c", script],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("installed", "asked", "refused"),
    [
        ("", "24.11.5-1+slurmstack.0", False),
        ("slurm-smd 25.05.1-1+slurmstack.0", "24.11.5-1+slurmstack.0", True),
        ("slurm-smd 25.05.1-1+slurmstack.0", "25.05.0-1+slurmstack.0", False),
        ("slurm-wlm-basic-plugins 24.11.5-4+deb13u1", "25.05.1-1", False),
        ("slurm-wlm-basic-plugins 24.11.5-4+deb13u1", "1:23.11.4-1", True),
        # Without a version: what the package sources would give, unless it is there.
        ("slurm-smd 25.05.1-1+slurmstack.0", None, True),
        ("slurm-smd 24.11.5-1+slurmstack.0", None, False),
        ("slurm-wlm-basic-plugins 26.05.1-1", None, False),
    ],
)
def test_there_is_no_way_back_to_an_older_major_release(
    installed: str, asked: str | None, refused: bool, tmp_path: Path
) -> None:
    name, _, version = installed.partition(" ")
    programs = {
        # Asked for several, dpkg-query names only those that are there, and fails for the rest.
        "dpkg-query": f"""case " $* " in *" {name or "-"} "*) ;; *) exit 1 ;; esac
case $3 in *Version*) echo 'installed {version}' ;; *) printf installed ;; esac""",
        "apt-cache": "echo '  Candidate: 24.11.5-4+deb13u1'",
    }
    script = render(
        "packages/no-step-back.sh",
        bases=sorted(BASE.values()),
        base=BASE["distribution"],
        release=asked,
    )
    done = ran(script, programs, tmp_path)
    assert (done.returncode != 0) == refused, done.stderr
    assert ("no way back to an older major release" in done.stderr) == refused


def test_the_build_is_asked_for_what_is_checked() -> None:
    built = settings(packages={**SOURCE, "buildPackages": ["libnvidia-ml-dev"]})
    bundle = host_bundle("ctl", built)
    words = shlex.split(commands(bundle)["build-slurm"])
    assert words[1:4] == [SOURCE["archive"]["url"], SHA, "25.05.1-1"]
    assert words[4:] == [built.packages.release, "http,hwloc,jwt,nvml,pmix"]
    assert "libnvidia-ml-dev" in packages(bundle)
    steps = list(commands(bundle))
    assert steps.index("build-slurm") < steps.index("publish")


def test_nodes_trust_the_package_host_by_its_key_alone() -> None:
    bundle = node_bundle("cn01", settings(enrootPyxis=CONTAINERS), PACKAGES_KEY, "0011")
    text = files(bundle)[SOURCES.format("")]
    assert "URIs: http://10.73.0.10:8460/current\n" in text
    assert "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQENB\n" in text
    assert "trusted" not in text.lower()
    other = node_bundle("cn01", settings(enrootPyxis=CONTAINERS), PACKAGES_KEY, "0022")
    assert commands(bundle) != commands(other), "what is published anew is not looked for"


def test_a_host_can_change_between_node_and_package_host() -> None:
    """Both roles stand on it for a moment, and a path belongs to one of them."""
    site = {"slurm": "repository", "version": "25.05.1-1", "repository": REPOSITORY}
    both = settings(packages=site, enrootPyxis=CONTAINERS)
    assert not files(host_bundle("ctl", both)).keys() & files(
        node_bundle("ctl", both, PACKAGES_KEY, "0")
    )


def test_the_sites_repository() -> None:
    site = settings(packages={"slurm": "repository", "repository": REPOSITORY})
    text = files(node_bundle("cn01", site, None, None))
    assert (
        "Suites: ./\nSigned-By:\n -----BEGIN"
        in text["/etc/apt/sources.list.d/slurmstack-site.sources"]
    )
    assert "slurm-smd-slurmd" in packages(compute("cn01", site))


def test_pyxis_changes_in_one_step_with_slurmd() -> None:
    both = settings(enrootPyxis=CONTAINERS)
    assert both.enroot_pyxis is not None
    bundle = compute("cn01", both)
    release = both.enroot_pyxis.pyxis.release(both.packages)
    assert packages(bundle)["slurmstack-pyxis"] == release
    assert packages(bundle)["enroot"] == "3.5.0-1"
    assert packages(bundle)["enroot+caps"] == "3.5.0-1"
    again = unit(bundle, "slurmd.service").restart_on
    assert {"package:slurmd", "package:slurmstack-pyxis", PYXIS_CONF} <= set(again)
    bundle.render()


def test_the_controller_serves_plugstack_and_has_the_plugin() -> None:
    both = settings(enrootPyxis=CONTAINERS)
    bundle = controller_bundle("ctl", both, dict.fromkeys(both.compute, HARDWARE))
    assert (
        "include /etc/slurm/plugstack.conf.d/*.conf\n" in files(bundle)["/etc/slurm/plugstack.conf"]
    )
    assert "slurmstack-pyxis" in packages(bundle)
    assert "enroot" not in packages(bundle)
    assert "/etc/slurm/plugstack.conf" in unit(bundle, "slurmctld.service").reload_on
    bundle.render()


def test_pyxis_options_are_the_first_documents() -> None:
    assert pyxis_conf(settings(enrootPyxis=CONTAINERS)).split() == [
        "required",
        "/usr/lib/slurmstack/spank/pyxis.so",
        "runtime_path=/run/pyxis",
        "container_scope=job",
        "execute_entrypoint=true",
        "sbatch_support=true",
    ]


def read_enroot(text: str, **environment: str) -> dict[str, str]:
    """As Enroot's config::load: checked by `bash -n`, split at blanks and =, evaluated."""
    reader = r"""
    "$BASH" -n <<<"$1" || exit 1
    while IFS=$' \t=' read -r key value; do
      if [[ $key =~ ^ENROOT_[[:upper:]_]+$ ]]; then echo "$key|$(eval echo "$value")"; fi
    done <<<"$1"
    """
    done = subprocess.run(
        ["bash", "-euc", reader, "bash", text],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("|") for line in done.stdout.splitlines())


def test_enroot_conf_as_enroots_own_loop_reads_it() -> None:
    conf = {"ENROOT_TEMP_PATH": "${TMPDIR:-/tmp}", "ENROOT_MAX_PROCESSORS": "$(nproc)"}
    containers = {**CONTAINERS, "enroot": {"packages": [ENROOT], "conf": conf}}
    bundle = compute("cn01", settings(enrootPyxis=containers))
    read = read_enroot(files(bundle)["/etc/enroot/enroot.conf"], TMPDIR="/scratch")
    user = os.getuid()
    assert read["ENROOT_RUNTIME_PATH"] == f"/run/enroot/user-{user}"
    assert read["ENROOT_CACHE_PATH"] == f"/tmp/enroot-cache/user-{user}"
    assert read["ENROOT_DATA_PATH"] == f"/tmp/enroot-data/user-{user}"
    # Where any user can make a folder, and nobody another's away: now, and after each boot.
    places = "/etc/tmpfiles.d/slurmstack-enroot.conf"
    assert "\nd /tmp/enroot-data 1777 root root -\n" in files(bundle)[places]
    assert commands(bundle)["enroot-folders"] == f"systemd-tmpfiles --create {places}"
    assert read["ENROOT_SQUASH_OPTIONS"] == "-noI -noD -noF -noX -no-duplicates"
    assert read["ENROOT_TEMP_PATH"] == "/scratch"
    assert int(read["ENROOT_MAX_PROCESSORS"]) > 0


def read_apptainer(text: str) -> dict[str, list[str]]:
    """As apptainerconf.GetDirectives of Apptainer 1.4 reads it."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?m)^\s*([a-zA-Z _-]+)[ \t]*=[ \t]*(.*)$", text):
        if value.strip():
            found.setdefault(name.strip(), []).append(value.strip())
    return found


def test_apptainer_conf_says_the_policy_and_the_settings() -> None:
    conf = {"bind path": ["/etc/hosts", "/scratch"], "mount home": False}
    bundle = apptainer_bundle("cn01", settings(apptainer={"packages": [APPTAINER], "conf": conf}))
    read = read_apptainer(files(bundle)["/etc/apptainer/apptainer.conf"])
    assert set(read) == set(POLICY)
    assert read["allow setuid"] == ["no"]
    assert read["mount hostfs"] == ["no"]
    assert read["mount home"] == ["no"]
    assert read["bind path"] == ["/etc/hosts", "/scratch"]
    assert read["sessiondir max size"] == ["16"]
    assert packages(bundle) == {"apptainer": "1.4.2"}
    assert packages(apptainer_bundle("cn01", settings(apptainer={}))) == {"apptainer": None}


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("packages/fetch.sh", {}),
        ("packages/publish.sh", {}),
        ("packages/build-slurm.sh", {}),
        ("packages/build-spank.sh", {}),
        ("packages/refresh.sh", {"sources": ["/a", "/b"], "index": "00"}),
        ("containers/srun-has-containers.sh", {}),
        ("containers/enroot-answers.sh", {}),
        ("containers/apptainer-policy.sh", {"setuid": False}),
        ("packages/no-step-back.sh", {"bases": ["a", "b"], "base": "a", "release": None}),
        ("packages/no-step-back.sh", {"bases": ["a", "b"], "base": "a", "release": "1.2"}),
    ],
)
def test_scripts_are_plain_posix(template: str, values: dict[str, Any], tmp_path: Path) -> None:
    script = tmp_path / "script.sh"
    script.write_text(render(template, **values))
    done = subprocess.run(
        # dpkg's formats and scripts for another shell hold what this one must not expand.
        [SHELLCHECK, "--shell=sh", "--exclude=SC2016", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_nodes_learn_what_the_package_host_published() -> None:
    node, _ = deploy(enrootPyxis=CONTAINERS, apptainer={"packages": [APPTAINER]})
    made = {name for name, args in node.made.items() if args.typ == "command:remote:Command"}
    assert {"ctl-package-host", "cn01-packages", "cn02-packages", "cn01-apptainer"} <= made
    assert "ctl-packages" not in made
    text = plain(node.made["cn01-packages"].inputs["stdin"])
    assert "published as 0123" in text
    assert "BEGIN PGP PUBLIC KEY BLOCK" in text


@pytest.mark.parametrize(
    ("changes", "served"),
    [
        ({}, False),
        ({"packages": SOURCE}, True),
        ({"enrootPyxis": CONTAINERS}, True),
        ({"apptainer": {}}, False),
        ({"apptainer": {"packages": [APPTAINER]}}, True),
        ({"packages": {"slurm": "repository", "repository": REPOSITORY}}, False),
    ],
)
def test_the_controller_serves_what_no_repository_has(
    changes: dict[str, Any], served: bool
) -> None:
    node, _ = deploy(**changes)
    assert ("ctl-package-host" in node.made) is served
