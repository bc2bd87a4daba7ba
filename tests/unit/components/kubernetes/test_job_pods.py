"""Pods of jobs: who has what of the bridge, and which settings are refused."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

import pytest

from components.kubernetes import with_jobs
from components.kubernetes.job_pods import CREDENTIAL_ROLE, credential_bundle, pods_bundle
from on_node.pods.places import SOCKET
from remote.bundle import Bundle, Directory, File, Unit
from settings import Settings, parse
from settings.problems import SettingsError
from tests.unit.components.test_cluster import bare

CA = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
TOKEN = "not-for-anyone-5c1d7e"


def settings(token: str | None = TOKEN, **pods: Any) -> Settings:
    bridge = {
        "registries": [{"name": "hub:5407"}],
        "pods": {"server": "https://10.0.0.5:6443", "ca": CA, **pods},
    }
    more = {} if token is None else {"kubernetesToken": token}
    return parse({**bare(), "kubernetesBridge": bridge, **more})


def files(of: Bundle) -> dict[str, File]:
    return {part.path: part for part in of.parts if isinstance(part, File)}


def units(of: Bundle) -> list[str]:
    return [part.name for part in of.parts if isinstance(part, Unit)]


def test_nodes_have_the_agent_and_the_controller_what_cleans_up() -> None:
    node, head = pods_bundle("cn01", settings()), pods_bundle("ctl", settings())
    assert (units(node), units(head)) == (["slurmstack-pods.socket"], ["slurmstack-pods-end.timer"])
    assert "/usr/local/bin/slurmstack-pod" in files(node)
    assert "/usr/local/bin/slurmstack-pod" not in files(head)
    folders = {it.path: it.mode for it in head.parts if isinstance(it, Directory)}
    assert "/mnt/nas/results" not in folders
    kept = pods_bundle("ctl", settings(results="/mnt/nas/results"))
    assert Directory("/mnt/nas/results", mode="1777", parents=True) in kept.parts


def test_each_program_is_started_where_it_lies() -> None:
    node, head = files(pods_bundle("cn01", settings())), files(pods_bundle("ctl", settings()))
    units_folder, library = "/etc/systemd/system/slurmstack-pods", "/usr/local/lib/slurmstack-pods"
    for there, name in ((node, f"{units_folder}@.service"), (head, f"{units_folder}-end.service")):
        text = str(there[name].content)
        assert f"Environment=PYTHONPATH={library} " in text
        (module,) = [line.rsplit(" ", 1)[1] for line in text.splitlines() if "ExecStart=" in line]
        assert f"{library}/{module.replace('.', '/')}.py" in there
    runner = str(node["/usr/local/bin/slurmstack-pod"].content)
    assert f" PYTHONPATH={library} " in runner
    socket = str(node[f"{units_folder}.socket"].content)
    (place,) = [line.partition("=")[2] for line in socket.splitlines() if "ListenStream=" in line]
    # Where whoever asks looks for it, and the one folder in which the agent may write.
    assert place == SOCKET
    agent = str(node[f"{units_folder}@.service"].content)
    assert f"ReadWritePaths={PurePosixPath(place).parent}\n" in agent


def test_the_token_is_in_one_file_of_root_s_alone() -> None:
    bundle = credential_bundle("cn01", TOKEN)
    (file,) = files(bundle).values()
    assert (bundle.role, file.path, file.mode, file.owner, file.content) == (
        CREDENTIAL_ROLE, "/etc/slurmstack/kubernetes-token", "0600", "root:root", f"{TOKEN}\n",
    )  # fmt: skip
    assert TOKEN not in pods_bundle("cn01", settings()).render()
    assert TOKEN not in repr(settings())


def test_what_the_agent_reads() -> None:
    of = settings(nodeNames={"cn01": "k1"}, grace=7, gpuResource="", quota={"requests.cpu": "32"})
    told = json.loads(str(files(pods_bundle("cn01", of))["/etc/slurmstack/pods.json"].content))
    assert told == {
        "server": "https://10.0.0.5:6443", "ca": "/etc/slurmstack/kubernetes-ca.pem",
        "registries": ["hub:5407"], "folders": ["/mnt/nas"], "namespacePrefix": "user-",
        "nodeNames": {"cn01": "k1"}, "graceSeconds": 7, "startSeconds": 300, "gpuResource": "",
        "priorityClasses": {}, "quota": {"requests.cpu": "32"}, "results": "",
        "keepDays": None, "resultsMebibytes": None, "accounting": False,
    }  # fmt: skip


def test_the_epilog_always_ends_well_and_in_time() -> None:
    (program,) = with_jobs.with_jobs(settings(grace=40))
    assert (program.parameter, program.after_site) == ("Epilog", False)
    assert program.text.endswith("\nexit 0\n")
    assert "timeout -k 2 70 " in program.text
    assert list(with_jobs.with_jobs(parse(bare()))) == []


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"token": None}, "slurmstack:kubernetesToken: expected the token"),
        ({"token": "two words of a person's"}, "a token of the API's, of one word"),
        ({"server": "http://10.0.0.5"}, "the API server's URL"),
        ({"ca": "/etc/ca.pem"}, "certificates in PEM"),
        ({"ca": CA + "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----"}, "in PEM"),
        ({"nodeNames": {"cn99": "k"}}, "a compute node"),
        ({"namespacePrefix": "User"}, "the beginning of a namespace's name"),
        ({"quota": {"requests.cpu": "many"}}, "a quantity"),
        ({"quota": {"nvidia.com/gpu": "4"}}, "a resource, such as requests.nvidia.com/gpu"),
        ({"results": "/var/results"}, "pods.results in /mnt/nas"),
        ({"keepResults": 30}, "results, the folder that keepResults"),
    ],
)
def test_what_is_no_bridge(values: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings(**values)
    assert told in str(refused.value)
    assert "PRIVATE" not in str(refused.value)


def test_a_token_without_pods_is_for_nothing() -> None:
    with pytest.raises(SettingsError, match=r"kubernetesBridge\.pods"):
        parse({**bare(), "kubernetesToken": TOKEN})
