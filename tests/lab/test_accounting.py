"""Accounting on real nodes: jobs in their accounts, objects as declared, dumps that restore."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml

from tests.lab.conftest import RunningLab, await_that

pytestmark = pytest.mark.lab

Accounting = dict[str, Any]
Change = Callable[[Accounting], None]

RECONCILE = "/usr/local/lib/slurmstack/accounting/reconcile"
RESTORE = "/usr/local/lib/slurmstack/accounting/restore"
DUMPS = "/var/backups/slurmdbd"


@pytest.fixture(scope="module")
def alice(users: RunningLab) -> str:
    """A user of the settings, with a login on every node."""
    return "alice"


@pytest.fixture
def edit(restored: RunningLab) -> Callable[[Change], None]:
    """Changes ``slurmstack:accounting``; afterwards the lab is as it was."""
    return lambda how: restored.change(lambda config: how(config["accounting"]))


def run_as(lab: RunningLab, user: str, command: str, check: bool = True) -> str:
    words = f"cd /tmp && runuser -u {user} -- {command}"
    done = lab.ssh("ctl", words, check=check)
    return done.stdout + done.stderr


def job(lab: RunningLab, user: str, options: str = "") -> str:
    """A finished job's id."""
    return run_as(lab, user, f"sbatch --wait --parsable {options} --wrap true").split()[0]


def sacct(lab: RunningLab, number: str) -> list[str]:
    """User, account, QOS and state of a job, empty where slurmdbd has no record of it."""
    words = f"sacct -X -n -P -j {number} --format=User,Account,QOS,State"
    return lab.ssh("ctl", words).stdout.strip().split("|")


def recorded(lab: RunningLab, number: str) -> list[str]:
    await_that(lambda: sacct(lab, number)[-1] == "COMPLETED")
    return sacct(lab, number)


def database(lab: RunningLab, what: str) -> set[str]:
    return set(lab.ssh("ctl", f"sacctmgr -n -P show {what}").stdout.split("\n")) - {""}


def associations(lab: RunningLab) -> set[str]:
    return database(lab, "association woplimits format=Account,User,Partition,ParentName,Fairshare")


def test_a_job_is_in_its_account(lab: RunningLab, alice: str) -> None:
    assert recorded(lab, job(lab, alice)) == ["alice", "physics", "normal", "COMPLETED"]
    number = job(lab, alice, "--qos=high")
    assert recorded(lab, number) == ["alice", "physics", "high", "COMPLETED"]


def test_a_job_in_another_account_is_refused(lab: RunningLab, alice: str) -> None:
    said = run_as(lab, alice, "sbatch -A science --wrap true", check=False)
    assert "Invalid account" in said


def test_the_database_is_as_slurm_asks_and_reached_from_here_alone(lab: RunningLab) -> None:
    log = lab.ssh("ctl", "cat /var/log/slurm/slurmdbd.log").stdout
    assert "slurmdbd version" in log
    assert "not recommended values" not in log
    held = lab.ssh("ctl", "stat -c '%a %U:%G' /etc/slurm/slurmdbd.conf").stdout.strip()
    assert held == "600 slurm:slurm"
    listening = lab.ssh("ctl", "ss -H -l -t -n 'sport = :3306' | awk '{ print $4 }'").stdout
    assert listening.split() == ["127.0.0.1:3306"]


def test_a_second_run_changes_nothing(lab: RunningLab) -> None:
    before = database(lab, "transactions")
    assert "unchanged" in lab.up("--expect-no-changes")
    # Also where the command is run again, it asks and does not write.
    assert lab.ssh("ctl", RECONCILE).stdout == ""
    assert database(lab, "transactions") == before


def test_only_what_is_declared_is_touched(lab: RunningLab, edit: Callable[[Change], None]) -> None:
    before = associations(lab)
    lab.ssh(
        "ctl",
        "sacctmgr -i add account byhand fairshare=7 && sacctmgr -i add user carl account=byhand"
        " && sacctmgr -i modify qos set maxjobsperuser=3 where name=high",
    )

    def add(accounting: Accounting) -> None:
        accounting["qos"]["low"] = {"Description": "It's & for nights", "Preempt": "high"}
        accounting["qos"]["high"]["Priority"] = 50
        accounting["accounts"]["biology"] = {
            "Parent": "science",
            "GrpTRES": {"cpu": 8, "mem": "4G"},
        }
        accounting["users"]["dora"] = {
            "AdminLevel": "Operator",
            "DefaultAccount": "biology",
            "Accounts": {"physics": {"Partitions": {"main": {"MaxJobs": 2}}}, "biology": {}},
        }
        accounting["users"]["alice"]["Accounts"]["physics"] = {"Fairshare": 3}

    text = lab.settings.read_text()
    edit(add)
    shown = lab.pulumi("preview", "--diff").stdout
    assert "association dora biology" in shown
    assert "Description=It's & for nights" in shown
    lab.up()
    made = associations(lab)
    assert made - before == {
        "byhand|||root|7", "byhand|carl|||1", "biology|||science|1", "biology|dora|||1",
        "physics|dora|||1", "physics|dora|main||1", "physics|alice|||3",
    }  # fmt: skip
    assert database(lab, "qos high format=Priority,MaxJobsPU,MaxWall") == {"50|3|02:00:00"}
    assert database(lab, "user dora format=User,DefaultAccount,AdminLevel") == {
        "dora|biology|Operator"
    }
    assert lab.ssh("ctl", f"{RECONCILE} --check").stdout == ""

    # What was changed by hand behind a declaration comes back with the next run.
    lab.ssh("ctl", "sacctmgr -i modify account set grptres=cpu=99 where name=biology")
    drift = lab.ssh("ctl", f"{RECONCILE} --check", check=False)
    assert drift.returncode == 3
    assert "account biology" in drift.stdout
    assert lab.ssh("ctl", RECONCILE).stdout == "change account biology\n"
    grp = database(lab, "association account=biology user= format=GrpTRES")
    assert "cpu=8,mem=4G" in grp

    # An account that others have put something into is not removed over their heads.
    lab.ssh("ctl", "sacctmgr -i add user carl account=biology")
    lab.settings.write_text(text)
    said = lab.up(check=False)
    assert "slurmstack: ctl: command accounting-objects: " in said
    assert "account biology is not declared any more" in said
    assert "users carl" in said
    lab.ssh("ctl", "sacctmgr -i delete user name=carl account=biology")
    lab.up()
    assert associations(lab) - before == {"byhand|||root|7", "byhand|carl|||1"}
    assert database(lab, "user dora") == set()
    assert database(lab, "qos format=Name") == {"normal", "high"}
    assert database(lab, "qos high format=Priority,MaxJobsPU") == {"100|3"}
    lab.ssh(
        "ctl",
        "sacctmgr -i delete user name=carl && sacctmgr -i delete account name=byhand"
        " && sacctmgr -i modify qos set maxjobsperuser=-1 where name=high",
    )
    assert associations(lab) == before


def test_a_partition_has_its_qos_when_slurmctld_takes_it_up(
    lab: RunningLab, edit: Callable[[Change], None]
) -> None:
    content = yaml.safe_load(lab.settings.read_text())
    content["config"]["slurmstack:accounting"]["qos"]["night"] = {"MaxJobsPerUser": 5}
    night = {"Nodes": "ALL", "extra": {"QOS": "night"}}
    content["config"]["slurmstack:partitions"]["night"] = night
    edit(lambda _: None)
    before = lab.settings.read_text()
    try:
        lab.settings.write_text(yaml.safe_dump(content, sort_keys=False))
        lab.up()
        assert "QoS=night" in lab.ssh("ctl", "scontrol show partition night").stdout
        assert database(lab, "qos night format=MaxJobsPU") == {"5"}
    finally:
        lab.settings.write_text(before)
        lab.up()
    assert "night" not in database(lab, "qos format=Name")


def test_a_database_that_is_down(
    lab: RunningLab, edit: Callable[[Change], None], alice: str
) -> None:
    lab.ssh("ctl", "systemctl stop mariadb")
    try:
        edit(lambda it: it["accounts"]["physics"].update(Fairshare=20))
        said = lab.up(check=False)
        assert "slurmstack: ctl: command accounting-objects: " in said
        assert "Unable to connect to database" in said
        assert "systemctl status slurmdbd mariadb" in said
        # slurmctld goes on, and tells slurmdbd later.
        number = job(lab, alice)
    finally:
        lab.ssh("ctl", "systemctl start mariadb")
    assert recorded(lab, number) == ["alice", "physics", "normal", "COMPLETED"]
    lab.up()
    assert database(lab, "association account=physics user= format=Account,Fairshare") == {
        "physics|20"
    }


def test_a_dump_restores_a_lost_record(lab: RunningLab, alice: str) -> None:
    number = job(lab, alice)
    recorded(lab, number)
    for day in range(10, 30):
        lab.ssh("ctl", f"touch {DUMPS}/slurm_acct_db-202501{day}T000000Z.sql.gz")
    # The dump lacks a declared user: restored, she is made again.
    lab.ssh("ctl", "sacctmgr -i delete user name=alice")
    lab.ssh("ctl", "systemctl start slurmdbd-dump.service")
    lab.ssh("ctl", RECONCILE)
    dumps = lab.ssh("ctl", RESTORE).stdout.splitlines()
    assert len(dumps) == 14
    newest = dumps[-1].split()[0]
    assert lab.ssh("ctl", f"stat -c %a {newest} {DUMPS}").stdout.split() == ["600", "700"]

    lab.ssh(
        "ctl",
        f"mariadb -e 'DELETE FROM lab_job_table WHERE id_job = {number}' slurm_acct_db",
    )
    assert sacct(lab, number) == [""]
    assert "starting slurmdbd" in lab.ssh("ctl", f"{RESTORE} {newest}").stderr
    assert sacct(lab, number) == ["alice", "physics", "normal", "COMPLETED"]
    assert "before-restore" in lab.ssh("ctl", RESTORE).stdout
    # slurmctld is back with slurmdbd, too.
    recorded(lab, job(lab, alice))

    # A dump that was cut off is refused before anything is stopped.
    lab.ssh("ctl", f"head -c 2000 {newest} >/tmp/cut.sql.gz")
    began = lab.ssh("ctl", "systemctl show -p InvocationID slurmdbd").stdout
    cut = lab.ssh(
        "ctl", f"{RESTORE} /tmp/cut.sql.gz; s=$?; rm /tmp/cut.sql.gz; exit $s", check=False
    )
    assert cut.returncode == 1
    assert "is not whole" in cut.stderr
    assert lab.ssh("ctl", "systemctl show -p InvocationID slurmdbd").stdout == began


def test_the_password_is_in_its_file_alone(lab: RunningLab) -> None:
    made = password(lab)
    assert len(made) == 32
    watch = (
        "rm -f /run/stop-watching; while [ ! -e /run/stop-watching ]; do"
        " cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null;"
        " done | tr '\\0' '\\n' | sort -u"
    )
    before = lab.settings.read_text()
    chosen = "An0ther-password/of+the~site"
    try:
        with ThreadPoolExecutor(1) as pool:
            watched = pool.submit(lab.ssh, "ctl", watch, timeout=300)
            config = ("config", "set", "--secret", "slurmstack:accountingPassword", chosen)
            lab.pulumi(*config)
            assert chosen not in lab.settings.read_text()
            said = lab.pulumi("preview", "--diff").stdout
            said += lab.up("--diff")
            lab.ssh("ctl", "touch /run/stop-watching")
            said += watched.result().stdout
        # It is the one that slurmdbd and its database go by.
        assert password(lab) == chosen
        assert database(lab, "cluster format=Cluster") == {"lab"}
        login = "mariadb --no-defaults -u slurm --password=$(cat) -e 'SELECT 1' slurm_acct_db"
        assert lab.ssh("ctl", f"echo '{chosen}' | {login}").returncode == 0
        assert lab.ssh("ctl", f"echo '{made}' | {login}", check=False).returncode != 0
        said += lab.pulumi("stack", "output", "--json").stdout
        said += lab.pulumi("stack", "export").stdout
        folder = lab.lab.checkout / ".lab" / lab.name
        for path in folder.rglob("*"):
            if path.is_file() and "nodes" not in path.relative_to(folder).parts:
                said += path.read_bytes().decode(errors="replace")
        places = "/tmp /var/tmp /run /root /home /var/log /var/lib/mysql /var/lib/slurmstack /etc"
        for text in (made, chosen):
            assert text not in said
            found = lab.ssh(
                "ctl",
                f"journalctl --no-pager -o cat | grep -cF -e '{text}' | grep -vx 0;"
                f" grep -rlsF -e '{text}' {places}",
                check=False,
            ).stdout.split()
            # The applier keeps the last version of what it replaced, as tightly as the file.
            kept = "/var/lib/slurmstack/slurmdbd/previous/etc/slurm/slurmdbd.conf"
            assert found == [kept if text == made else "/etc/slurm/slurmdbd.conf"]
        assert lab.ssh("ctl", f"stat -c '%a %U' {kept}").stdout.split() == ["600", "slurm"]
        assert lab.ssh("ctl", "stat -c %a /var/lib/slurmstack/slurmdbd").stdout.strip() == "700"
    finally:
        lab.ssh("ctl", "rm -f /run/stop-watching")
        lab.settings.write_text(before)
        lab.up()
    # The chosen one gone, another is made.
    assert len(password(lab)) == 32
    assert password(lab) != made
    assert database(lab, "cluster format=Cluster") == {"lab"}


def password(lab: RunningLab) -> str:
    return lab.ssh("ctl", "sed -n 's/^StoragePass=//p' /etc/slurm/slurmdbd.conf").stdout.strip()


def test_a_dump_of_another_controller(lab: RunningLab, alice: str) -> None:
    """Its database knows the cluster by another id; slurmctld would not start with it."""
    number = job(lab, alice)
    recorded(lab, number)
    query = "mariadb slurm_acct_db -N -e"
    lab.ssh("ctl", f"{query} 'UPDATE cluster_table SET id = id + 1'")
    lab.ssh("ctl", "systemctl start slurmdbd-dump.service")
    lab.ssh("ctl", f"{query} 'UPDATE cluster_table SET id = id - 1'")
    newest = lab.ssh("ctl", RESTORE).stdout.splitlines()[-1].split()[0]
    lab.ssh("ctl", f"{RESTORE} {newest}")
    lab.ssh("ctl", "systemctl restart slurmctld")
    await_that(lambda: "is UP" in lab.ssh("ctl", "scontrol ping", check=False).stdout)
    assert sacct(lab, number) == ["alice", "physics", "normal", "COMPLETED"]
    assert recorded(lab, job(lab, alice)) == ["alice", "physics", "normal", "COMPLETED"]


def test_a_purged_job_is_in_the_archive(
    lab: RunningLab, edit: Callable[[Change], None], alice: str
) -> None:
    """Its record is put back by three years, so that it is time to purge it."""
    number = job(lab, alice)
    recorded(lab, number)
    edit(lambda accounting: accounting["slurmdbd"].update(ArchiveJobs=True, ArchiveSteps=True))
    lab.up()
    times = ("time_submit", "time_eligible", "time_start", "time_end")
    earlier = ", ".join(f"{name} = {name} - 94608000" for name in times)
    change = f"UPDATE lab_job_table SET {earlier} WHERE id_job = {number}"
    lab.ssh("ctl", f"mariadb slurm_acct_db -e '{change}'")
    ask = f"sacct -X -n -P -j {number} -S 2020-01-01 --format=State"
    assert lab.ssh("ctl", ask).stdout.split() == ["COMPLETED"]
    lab.ssh("ctl", "sacctmgr -i archive dump")
    assert lab.ssh("ctl", ask).stdout == ""
    shown = lab.ssh("ctl", "stat -c '%n %U:%a' /var/lib/slurm-archive/*_job_table_*").stdout
    file, owner = shown.split()
    assert owner == "slurm:600"
    lab.ssh("ctl", f"sacctmgr -i archive load file={file}")
    assert lab.ssh("ctl", ask).stdout.split() == ["COMPLETED"]


def test_accounting_comes_to_a_cluster_that_ran_without(lab: RunningLab, alice: str) -> None:
    with lab.having(accounting=None):
        lab.ssh(
            "ctl",
            "systemctl stop slurmctld && rm -rf /var/lib/mysql /var/spool/slurmctld/clustername"
            " && systemctl start slurmctld",
        )
        await_that(lambda: lab.ssh("ctl", "srun -N2 true", check=False).returncode == 0)
        began = lab.ssh("ctl", "cat /var/spool/slurmctld/clustername").stdout
        assert began.startswith("lab|")
    assert lab.ssh("ctl", "cat /var/spool/slurmctld/clustername").stdout == began
    assert recorded(lab, job(lab, alice)) == ["alice", "physics", "normal", "COMPLETED"]


def test_accounting_goes_and_comes_back_with_its_records(lab: RunningLab, alice: str) -> None:
    number = job(lab, alice)
    recorded(lab, number)
    with lab.having(accounting=None):
        assert "no slurmdbd" in lab.ssh("ctl", "pidof slurmdbd mariadbd || echo no slurmdbd").stdout
        assert lab.ssh("ctl", "test ! -e /etc/slurm/slurmdbd.conf").returncode == 0
        assert "cn01" in lab.ssh("ctl", "srun -N2 hostname").stdout
    assert recorded(lab, number) == ["alice", "physics", "normal", "COMPLETED"]
    assert recorded(lab, job(lab, alice)) == ["alice", "physics", "normal", "COMPLETED"]
