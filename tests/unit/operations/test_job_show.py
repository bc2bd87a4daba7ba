"""`slurmstack job show`: what slurmctld 24.11 said of jobs of the lab, and what is told of it."""

from __future__ import annotations

import pytest

from operations.job_show import lines, read
from operations.refused import Refused

WAITS = (
    "job JobId=4 JobName=my run UserId=alice(5001) GroupId=alice(5001) MCS_label=N/A Priority=1210 "
    "Nice=0 Account=physics QOS=normal JobState=PENDING Reason={reason} Dependency=(null) "
    "Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0 RunTime=00:00:00 TimeLimit=1-00:00:00 "
    "TimeMin=N/A SubmitTime=2026-01-31T06:02:47 EligibleTime=2026-01-31T06:02:47 "
    "StartTime=Unknown EndTime=Unknown Partition=main AllocNode:Sid=ctl:6625 NodeList= "
    "NumNodes=2-2 NumCPUs=2 ReqTRES=cpu=2,mem=48210M,node=2,billing=2 AllocTRES=(null) "
    "WorkDir=/tmp StdErr=/tmp/x.%j StdIn=/dev/null StdOut=/tmp/x.%j \n"
)
ASKED = """\
priority        1210|       200|      1000|        10|         0|         0|
before 3
start 2026-02-01T08:00:00 cn[01-02]
header #K8S_IMAGE=hub:5407/a:1
"""
ENDED = (
    "ended 7|train|bob|chem|gpu|OUT_OF_MEMORY|0:125|2026-01-31T06:00:00|2026-01-31T06:00:01|"
    "2026-01-31T06:05:00|cn02\n"
)


def told(text: str) -> str:
    return "\n".join(lines(read("4", text, "ctl")))


def test_why_a_job_waits() -> None:
    assert (
        told(WAITS.format(reason="Resources") + ASKED)
        == """\
job 4  my run
  of        alice (account physics, QOS normal), partition main
  state     PENDING (Resources)
            it is next: it waits for nodes, cores, memory or GPUs that running jobs hold
  priority  1210 (age 200, fair share 1000, size 10)
            3 jobs of its partition have a higher one
  expected  2026-02-01T08:00:00 on cn[01-02]
  times     submitted 2026-01-31T06:02:47
  wants     cpu=2,mem=48210M,node=2,billing=2, at most 1-00:00:00
  header    K8S_IMAGE=hub:5407/a:1
  output    /tmp/x.4"""
    )


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("ReqNodeNotAvail,_UnavailableNodes:cn01", "a node that it needs is down"),
        ("JobHeldUser", "its owner holds it: scontrol release"),
        ("AssocGrpBillingRunMinutes", "a limit of its account or of its owner"),
        ("QOSMinGRES", "a limit of its QOS holds it"),
        ("MaxMemoryPerAccount", "a limit of its QOS for its account"),
        ("launch_failed_requeued_held", "its start failed and it was put back on hold"),
    ],
)
def test_reasons_have_words(reason: str, words: str) -> None:
    shown = read("4", WAITS.format(reason=reason), "ctl")
    assert (shown.reason, shown.meaning.startswith(words)) == (reason, True)


def test_a_reason_without_words_is_slurm_s() -> None:
    assert "\n  state     PENDING (FrontEndDown)\n  times " in told(
        WAITS.format(reason="FrontEndDown")
    )


def test_a_job_that_runs_and_the_end_of_its_output() -> None:
    text = WAITS.format(reason="None").replace("PENDING", "RUNNING")
    text = text.replace("NodeList= ", "NodeList=cn[01-02] ").replace(
        "Unknown", "2026-01-31T07:00:00"
    )
    shown = told(text + "output epoch 1\noutput  loss 0.3\n")
    assert "\n  state     RUNNING\n  nodes     cn[01-02]\n" in shown
    assert shown.endswith("\n  output    /tmp/x.4\n    epoch 1\n     loss 0.3")


def test_a_job_that_has_just_ended() -> None:
    """slurmctld knows it for MinJobAge more."""
    text = WAITS.format(reason="NonZeroExitCode").replace("PENDING", "FAILED")
    text = text.replace("ExitCode=0:0", "ExitCode=1:0").replace("RunTime=00:00", "RunTime=00:07")
    text = text.replace("StartTime=Unknown", "StartTime=2026-01-31T07:00:00")
    shown = told(text)
    assert "\n  state     FAILED, exit 1:0\n" in shown
    assert "started 2026-01-31T07:00:00, runs 00:07:00" in shown


def test_a_job_that_waits_has_no_nodes() -> None:
    """One that was put back into the queue had some."""
    text = WAITS.format(reason="BeginTime").replace("NodeList= ", "NodeList=cn01 ")
    assert "cn01" not in told(text)


def test_a_job_of_which_nobody_knows_when_it_starts() -> None:
    assert "expected" not in told(WAITS.format(reason="Resources") + "start N/A (null)\n")


def test_a_job_that_is_a_pod() -> None:
    kubernetes = """\
k8s pod user-5001/slurm-job-4 Pending, on cn01: ErrImagePull: not found
k8s image hub:5407/a:1
k8s event 2026-01-31T06:02:47Z Failed: no such image
k8s log step 1
"""
    assert """
  header    K8S_IMAGE=hub:5407/a:1
  pod       user-5001/slurm-job-4 Pending, on cn01: ErrImagePull: not found
  image     hub:5407/a:1
  event     2026-01-31T06:02:47Z Failed: no such image
  log       step 1
  output    /tmp/x.4""" in told(WAITS.format(reason="None") + ASKED + kubernetes)


def test_a_job_that_is_in_accounting_alone() -> None:
    assert (
        told(ENDED)
        == """\
job 7  train
  of        bob (account chem), partition gpu
  state     OUT_OF_MEMORY, exit 0:125
  nodes     cn02
  times     submitted 2026-01-31T06:00:00, started 2026-01-31T06:00:01, ended 2026-01-31T06:05:00"""
    )


def test_a_job_that_nobody_knows() -> None:
    with pytest.raises(Refused, match="ctl: there is no job 4, and none is in accounting"):
        read("4", "", "ctl")
