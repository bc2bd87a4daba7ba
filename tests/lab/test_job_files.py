"""The submit folder: files of people become their jobs, each once, whatever dies meanwhile."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import USERS, RunningLab, await_that

pytestmark = pytest.mark.lab

FOLDER = "/srv/nas/slurm-jobs"
#: Stands for a registry: it has one image.
REGISTRY = """
import http.server
class Registry(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        there = ("/v2/", "/v2/tools/alpine/manifests/3.20")
        self.send_response(200 if self.path in there else 404)
        self.end_headers()
http.server.HTTPServer(("", 5407), Registry).serve_forever()
"""
GOOD = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --partition=main --mem=50M
#SBATCH --time=00:05:00
#SBATCH --output=/srv/nas/%j.out
#K8S_IMAGE=ctl:5407/tools/alpine:3.20
id -un
"""


@pytest.fixture(scope="module")
def jobs(users: RunningLab) -> Iterator[RunningLab]:
    """The lab with a submit folder."""
    lab = users
    lab.ssh("ctl", "install -d -m 1777 /srv/nas")
    for node in ("cn01", "cn02"):
        lab.ssh(node, "install -d -m 1777 /srv/nas")
    program = base64.b64encode(REGISTRY.encode()).decode()
    lab.ssh("ctl", f"echo {program} | base64 -d >/root/registry.py; systemd-run --unit "
                   "stand-in-registry python3 /root/registry.py")  # fmt: skip
    bridge = {
        "folder": FOLDER,
        "folders": ["/srv/nas"],
        "registries": [{"name": "ctl:5407", "scheme": "http"}],
        "settled": 1,
        "waitingFiles": 60,
    }
    try:
        with lab.having(kubernetesBridge=bridge):
            yield lab
    finally:
        lab.ssh("ctl", "systemctl stop stand-in-registry; rm -rf /srv/nas", check=False)


def put(lab: RunningLab, name: str, text: str, user: str = "alice", mode: str = "600") -> None:
    """A file, as its owner puts it there: copied, not moved."""
    lab.send("ctl", f"install -m {mode} -o {user} -g {user} /dev/stdin {FOLDER}/submit/{name}",
             text.encode())  # fmt: skip


def told(lab: RunningLab, name: str) -> str:
    """The folder in which a file has come to rest, and what is told of it."""
    await_that(lambda: lab.ssh("ctl", f"ls {FOLDER}/*/{name}.txt", check=False).stdout != "")
    return lab.ssh("ctl", f"cd {FOLDER}; ls */{name}; cat */{name}.txt").stdout


def test_a_file_becomes_its_owner_s_job(jobs: RunningLab) -> None:
    put(jobs, "train.sh", GOOD.format(name="train"))
    said = told(jobs, "train.sh")
    match = re.fullmatch(r"processed/train.sh\njob (\d+)\n", said)
    assert match, said
    shown = jobs.ssh("ctl", f"scontrol show job {match[1]}").stdout
    assert f"UserId=alice({USERS['alice']})" in shown
    await_that(
        lambda: "JobState=COMPLETED" in jobs.ssh("ctl", f"scontrol show job {match[1]}").stdout
    )
    assert jobs.ssh("cn01", f"cat /srv/nas/{match[1]}.out 2>/dev/null || true").stdout in (
        "alice\n",
        "",
    )
    rights = jobs.ssh(
        "ctl", "systemctl show -p MainPID --value slurmstack-job-folder"
    ).stdout.strip()
    status = jobs.ssh("ctl", f"cat /proc/{rights}/status").stdout
    # CAP_SETGID and CAP_SETUID (capability.h: 6 and 7), and no way to more.
    assert re.search(r"^CapBnd:\s0+c0$", status, re.M)


def test_registries_are_asked(jobs: RunningLab) -> None:
    words = ("slurmstack", "job", "registries", "--stack", jobs.name)
    assert jobs.run(*words).stdout == "all registries answer ctl, login01\n"
    jobs.ssh("ctl", "systemctl kill --signal=STOP stand-in-registry")
    try:
        done = jobs.run(*words, check=False)
    finally:
        jobs.ssh("ctl", "systemctl kill --signal=CONT stand-in-registry")
    assert done.returncode == 1
    for name in ("ctl", "login01"):
        assert f"{name}: registry ctl:5407 does not answer: timed out\n" in done.stdout


def test_all_that_is_wrong_is_told_at_once_by_line(jobs: RunningLab, tmp_path: Path) -> None:
    wrong = """\
#!/bin/bash
#SBATCH --partition=gpus --mem=900G
#SBATCH --mem=1G
#SBATCH --output=/etc/cron.d/x
#SBATCH --job-name=$(reboot)
#K8S_IMAGE=docker.io/evil/miner:1
#K8S_IMG=x
"""
    put(jobs, "wrong.sh", wrong)
    said = told(jobs, "wrong.sh")
    assert said.startswith("failed/wrong.sh\n")
    for line in (
        "line 2: --partition: there is no gpus; is gpu meant?",
        "line 3: --mem is in line 2 already",
        "line 4: --output: expected a whole path in /srv/nas; found /etc/cron.d/x",
        "line 5: --job-name: '$' is nothing for a header: no shell reads it",
        "line 6: K8S_IMAGE: registry docker.io is not allowed; expected ctl:5407",
        "line 7: K8S_IMG is not known here; is K8S_IMAGE meant?",
    ):
        assert f"\n{line}\n" in said
    # The same for people, and before sbatch.
    content = wrong.encode()
    for verb in ("check", "submit"):
        jobs.send("ctl", "cat >/srv/nas/w.sh; chmod 644 /srv/nas/w.sh", content)
        done = jobs.ssh(
            "ctl", f"runuser -u alice -- slurmstack-job {verb} /srv/nas/w.sh", check=False
        )
        assert done.returncode == 1
        assert done.stderr.count("slurmstack-job: /srv/nas/w.sh: line ") == 6
    assert jobs.ssh("ctl", "squeue -h -u alice").stdout == ""
    file = tmp_path / "w.sh"
    file.write_bytes(content)
    words = ("slurmstack", "job", "check", str(file), "--user", "alice", "--stack", jobs.name)
    done = jobs.run(*words, check=False)
    assert (done.returncode, done.stdout.count(f"{file}: line ")) == (1, 6)
    file.write_text(GOOD.format(name="w"))
    assert jobs.run(*words).stdout == f"{file}: nothing is wrong\n"


def test_what_is_no_job_of_a_person_s(jobs: RunningLab) -> None:
    submit = f"{FOLDER}/submit"
    jobs.ssh(
        "ctl",
        f"cd {submit}; runuser -u alice -- ln -s /etc/shadow link.sh; mkdir dir.sh; "
        "head -c 2000000 /dev/zero >big.sh; chown alice big.sh; "
        "printf '#!/bin/sh\\n\\377\\n' >bytes.sh; chown alice bytes.sh; "
        "echo '#!/bin/sh' >roots.sh; echo '#!/bin/sh' >nobodys.sh; chown 54321 nobodys.sh; "
        "echo '#!/bin/sh' >open.sh; chown alice open.sh; chmod 666 open.sh; "
        "touch empty.sh; chown alice empty.sh",
    )
    put(jobs, "image.sh", GOOD.format(name="image").replace(":3.20", ":9"))
    put(jobs, "account.sh", GOOD.format(name="a").replace("--mem", "--account=nosuch --mem"))
    for name, reason in {
        "link.sh": "is no plain file", "big.sh": "is larger than 1048576 bytes",
        "bytes.sh": "line 2: byte 11 is no UTF-8", "roots.sh": "belongs to root; jobs are",
        "nobodys.sh": "belongs to uid 54321, whom ctl does not know",
        "open.sh": "may be written by others than its owner: chmod go-w", "empty.sh": "is empty",
        "image.sh": "line 6: K8S_IMAGE: registry ctl:5407 has no tools/alpine:9",
        "account.sh": "Invalid account",
    }.items():  # fmt: skip
        said = told(jobs, name)
        assert said.startswith(f"failed/{name}\n"), said
        assert reason in said
    # A folder of another's cannot be moved; it stays, and is said.
    journal = "journalctl -u slurmstack-job-folder -o cat --no-pager | grep -c '^dir.sh: '"
    assert jobs.ssh("ctl", journal).stdout in ("1\n",)
    jobs.ssh("ctl", f"rmdir {submit}/dir.sh 2>/dev/null; rm -rf {FOLDER}/failed/dir.sh")


def test_each_becomes_one_job_though_the_watcher_is_killed_all_the_time(jobs: RunningLab) -> None:
    names = [f"once{number}" for number in range(60)]
    files = "\n".join(
        f"cat >{FOLDER}/submit/{name}.sh <<'END'\n{GOOD.format(name=name)}END\n"
        f"chown alice {FOLDER}/submit/{name}.sh; chmod 600 {FOLDER}/submit/{name}.sh"
        for name in names
    )
    jobs.send("ctl", "sh", files.encode())
    # At any moment: 0.2 to 1.2 s after it was started.
    jobs.ssh(
        "ctl",
        "systemctl set-property --runtime slurmstack-job-folder.service CPUWeight=100; "
        "for i in $(seq 50); do systemctl kill -s KILL slurmstack-job-folder; "
        "systemctl reset-failed slurmstack-job-folder; systemctl start slurmstack-job-folder; "
        "sleep 0.$((i * 37 % 10))$((i % 7 + 2)); done",
    )
    await_that(
        lambda: (
            jobs.ssh("ctl", f"ls {FOLDER}/processed | grep -c 'once.*sh$'", check=False).stdout
            == "60\n"
        )
    )
    listed = jobs.ssh("ctl", "squeue -h -t all -u alice -o %j").stdout.split()
    assert sorted(name for name in listed if name.startswith("once")) == sorted(names)
    assert jobs.ssh("ctl", f"ls {FOLDER}/.taken").stdout == ""


def test_a_job_on_one_screen(jobs: RunningLab) -> None:
    put(jobs, "held.sh", GOOD.format(name="held").replace("--mem", "--hold --mem"))
    job = told(jobs, "held.sh").split()[-1]
    show = ("slurmstack", "job", "show", job, "--stack", jobs.name)
    shown = jobs.run(*show).stdout
    for line in (
        f"job {job}  held", "  state     PENDING (JobHeldUser)",
        "            its owner holds it: scontrol release",
        "  header    K8S_IMAGE=ctl:5407/tools/alpine:3.20", f"  output    /srv/nas/{job}.out",
    ):  # fmt: skip
        assert f"{line}\n" in shown
    jobs.ssh("ctl", f"runuser -u alice -- scancel {job}")
    refused = jobs.run("slurmstack", "job", "show", "999999", "--stack", jobs.name, check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "there is no job 999999" in refused.stderr


def test_nothing_is_lost_while_slurmctld_is_away(jobs: RunningLab) -> None:
    jobs.ssh("ctl", "systemctl stop slurmctld")
    try:
        put(jobs, "away.sh", GOOD.format(name="away"))
        journal = "journalctl -u slurmstack-job-folder -o cat --no-pager -n 5"
        await_that(lambda: "away.sh: waits: " in jobs.ssh("ctl", journal).stdout)
    finally:
        jobs.ssh("ctl", "systemctl start slurmctld")
    assert told(jobs, "away.sh").startswith("processed/away.sh\njob ")
