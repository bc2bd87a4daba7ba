"""What a server of shares asks before its clients lose one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from components.host.mounts import mounts_stay
from remote.bundle import Guard
from settings import parse
from templates.rendering import render
from tests.unit.components.test_cluster import bare

OLD = "# Exported\n/srv/home 10.0.0.21(rw) 10.0.0.22(rw)\n/srv/data 10.0.0.21(ro)\n"


@pytest.mark.parametrize(
    ("new", "lost"),
    [
        (OLD, ""),
        (OLD.replace("(ro)", "(rw)"), ""),  # exportfs takes it up, mounts stay
        (OLD.replace(" 10.0.0.22(rw)", ""), ""),  # which has nothing mounted
        (OLD.replace("/srv/data 10.0.0.21(ro)\n", ""), "/srv/data (10.0.0.21)"),
        (OLD.replace("/srv/home", "/srv/homes"), "/srv/home (10.0.0.21)"),
        (None, "/srv/data (10.0.0.21) /srv/home (10.0.0.21)"),
    ],
)
def test_what_clients_have_mounted_stays_exported(
    new: str | None, lost: str, tmp_path: Path
) -> None:
    exports, bundle, ss = (tmp_path / name for name in ("exports", "bundle", "bin/ss"))
    exports.write_text(OLD)
    block = "".join(f"  {line}\n" for line in (new or "").splitlines())
    bundle.write_text(f"slurmstack-bundle 1\nfile {exports} root:root 0644\n{block}end\n")
    ss.parent.mkdir()
    # As ss 6.15 prints established connections without a state.
    ss.write_text("#!/bin/sh\necho '0 0 10.0.0.12:2049 10.0.0.21:803'\n")
    ss.chmod(0o755)
    script = render("host/exports-stay.sh", exports=exports, goes=new is None)
    done = subprocess.run(
        ["sh", "-c", script],
        env={"PATH": f"{ss.parent}:/usr/bin:/bin", "SLURMSTACK_BUNDLE": str(bundle)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, lost in done.stderr) == (1 if lost else 0, True), done.stderr


@pytest.mark.parametrize(("allowed", "code"), [(False, 1), (True, 0)])
def test_a_share_under_jobs_goes_where_the_settings_let_jobs_be_lost(
    allowed: bool, code: int, tmp_path: Path
) -> None:
    """On a compute node, which has no daemon's state: there the guard is left out as a whole."""
    for host in ("cn01", "ctl"):
        settings = parse({**bare(), "guards": {"allowJobLoss": allowed}})
        guards = [it for it in mounts_stay(host, "system", settings) if isinstance(it, Guard)]
        assert len(guards) == (0 if allowed and host == "cn01" else 1)
    script = guards[0].script
    (tmp_path / "ps").write_text("#!/bin/sh\necho 'slurmstepd: [7.0]'\n")
    (tmp_path / "ps").chmod(0o755)
    (tmp_path / "in-use/file").parent.mkdir()
    (tmp_path / "in-use/file").touch()
    bundle = tmp_path / "bundle"
    bundle.write_text(f"slurmstack-bundle 1\n  Where={tmp_path}/in-use\nend\n")
    place = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURMSTACK_BUNDLE": str(bundle)}
    done = subprocess.run(["sh", "-c", script], env=place, capture_output=True, text=True)
    assert (done.returncode, "jobs run here that may have files there: 7." in done.stderr) == (
        code, bool(code),
    )  # fmt: skip
