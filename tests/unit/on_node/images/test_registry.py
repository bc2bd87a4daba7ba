"""The registry of images: what is published stays what it is, whenever a program is killed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from on_node.images import build, files, keeping, pull, registry, trial, used
from on_node.images.recipe import Recipe, Site
from on_node.images.refused import Refused
from on_node.images.registry import Entry, Registry


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A registry, its rule (two versions, no days), and one recipe."""
    monkeypatch.setattr(build, "WORK", tmp_path / "work")
    root = tmp_path / "containers"
    root.mkdir()
    build.folders(root)
    recipe = Recipe("small", "1", {"suite": "trixie"}, "", "", "", {}, {}, ())
    return Site(root, limit=None, keep=2, keep_days=0, images={"small": recipe})


def built(site: Site, version: str, content: bytes = b"", name: str = "small") -> dict[str, Any]:
    """A candidate as a build leaves it."""
    content = content or f"{name} {version}".encode()
    sha256 = hashlib.sha256(content).hexdigest()
    part = site.root / ".candidates/.part"
    part.write_bytes(content)
    known = {
        "name": name, "version": version, "sha256": sha256, "size": len(content),
        "file": f".candidates/{name}+{version}+{sha256[:12]}.sqsh", "base": "trixie",
        "recipe": "r", "built": registry.now(), "built_by": "anna@admin", "packages": 1,
        "seconds": 1,
    }  # fmt: skip
    build.keep(site.root, part, known)
    return known


def tried(site: Site, known: dict[str, Any], passed: bool = True) -> None:
    known = {
        **known, "tested": known["sha256"],
        "tests": [{"run": "true", "passed": passed, "words": "so", "seconds": 1}],
    }  # fmt: skip
    files.write_json(site.root / f".candidates/{known['name']}.json", known)


def published(site: Site, version: str, content: bytes = b"") -> None:
    tried(site, built(site, version, content))
    keeping.publish(site, "small", "", ["true"], "anna@admin")


def shown(site: Site) -> dict[str, Any]:
    told: dict[str, Any] = yaml.safe_load((site.root / "registry.yaml").read_text())["images"]
    return told


def test_it_is_yaml_that_says_what_is_there(site: Site) -> None:
    published(site, "1", b"first")
    entry = shown(site)["small"]["versions"]["1"]
    assert shown(site)["small"]["current"] == "1"
    assert entry["sha256"] == hashlib.sha256(b"first").hexdigest()
    assert (entry["size"], entry["file"]) == (5, "small+1.sqsh")
    assert entry["published_by"] == "anna@admin"
    assert (site.root / "small.sqsh").read_bytes() == b"first"
    assert (site.root / "small+1.sqsh").stat().st_mode & 0o777 == 0o644
    assert not [*site.root.glob(".candidates/*")]


def test_what_was_not_tested_or_failed_is_not_published(site: Site) -> None:
    known = built(site, "1")
    with pytest.raises(Refused, match="it was not tested; slurmstack image test small"):
        keeping.publish(site, "small", "", ["true"], "anna")
    tried(site, known, passed=False)
    with pytest.raises(Refused, match="a test failed: true: so"):
        keeping.publish(site, "small", "", ["true"], "anna")
    tried(site, known)
    with pytest.raises(Refused, match="a test was not run: import torch"):
        keeping.publish(site, "small", "", ["true", "import torch"], "anna")
    # Built anew, what was tested is another one.
    built(site, "1", b"another")
    with pytest.raises(Refused, match="it was not tested"):
        keeping.publish(site, "small", "", ["true"], "anna")
    assert not (site.root / "registry.yaml").exists()


def test_a_candidate_that_was_changed_is_not_published(site: Site) -> None:
    known = built(site, "1", b"first")
    tried(site, known)
    (site.root / known["file"]).write_bytes(b"worst")
    with pytest.raises(Refused, match="was changed: sha256"):
        keeping.publish(site, "small", "", ["true"], "anna")
    assert not (site.root / "small+1.sqsh").exists()


def test_a_version_stays_what_it_is(site: Site) -> None:
    published(site, "1", b"first")
    tried(site, built(site, "1", b"other"))
    with pytest.raises(Refused, match="give it another version"):
        keeping.publish(site, "small", "", ["true"], "anna")
    assert (site.root / "small+1.sqsh").read_bytes() == b"first"
    # The same bytes again are no other image.
    published(site, "1", b"first")
    assert [*shown(site)["small"]["versions"]] == ["1"]


def test_one_that_was_changed_is_told_and_not_made_current(site: Site) -> None:
    published(site, "1", b"first")
    published(site, "2", b"second")
    (site.root / "small+1.sqsh").write_bytes(b"worst")
    wrong = {it["version"]: it["wrong"] for it in keeping.listed(site, quick=False)["published"]}
    assert "small+1.sqsh was changed: sha256 " in wrong["1"]
    assert wrong["2"] == ""
    assert not keeping.listed(site, quick=True)["published"][0]["wrong"]
    with pytest.raises(Refused, match=r"was changed.*it is not made current"):
        keeping.publish(site, "small", "1", [], "anna")
    (site.root / "small+1.sqsh").write_bytes(b"longer than it was")
    assert "has 18 bytes" in keeping.listed(site, quick=True)["published"][0]["wrong"]
    (site.root / "small+1.sqsh").unlink()
    assert "is not there any more" in keeping.listed(site, quick=True)["published"][0]["wrong"]
    (site.root / "small+9.sqsh").write_bytes(b"by hand")
    assert keeping.listed(site, quick=True)["strangers"] == ["small+9.sqsh"]
    # Put in its place again by what was built once more: it is as it was published.
    for content in (None, b"worst"):
        (site.root / "small+1.sqsh").unlink(missing_ok=True)
        if content is not None:
            (site.root / "small+1.sqsh").write_bytes(content)
        published(site, "1", b"first")
        assert (site.root / "small+1.sqsh").read_bytes() == b"first"
    assert not [it["wrong"] for it in keeping.listed(site, False)["published"] if it["wrong"]]


def test_back_to_the_version_before(site: Site) -> None:
    published(site, "1", b"first")
    published(site, "2", b"second")
    keeping.publish(site, "small", "1", [], "anna")
    assert (site.root / "small.sqsh").read_bytes() == b"first"
    assert shown(site)["small"]["versions"]["2"]["followed"]
    assert "followed" not in shown(site)["small"]["versions"]["1"]
    with pytest.raises(Refused, match=r"small 3: not published; published of small: 2, 1|1, 2"):
        keeping.publish(site, "small", "3", [], "anna")


def test_old_versions_go_by_rule_unless_somebody_uses_them(site: Site) -> None:
    for version in ("1", "2", "3", "4"):
        published(site, version)
    users = {"small+2.sqsh": ["job 12"]}
    would = keeping.collect(site, users, "anna", dry=True)
    assert len(shown(site)["small"]["versions"]) == 4
    done = keeping.collect(site, users, "anna", dry=False)
    assert done == would
    assert [it["version"] for it in done["gone"]] == ["1"]
    assert done["kept"] == [{"title": "small 2", "why": "in use: job 12"}]
    assert [*shown(site)["small"]["versions"]] == ["2", "3", "4"]
    assert not (site.root / "small+1.sqsh").exists()
    # What a program of this host has open stays, too.
    with (site.root / "small+2.sqsh").open("rb") as taken:
        sleeper = subprocess.Popen(["sleep", "60"], stdin=taken)
        try:
            (kept,) = keeping.collect(site, {}, "anna", dry=False)["kept"]
        finally:
            sleeper.kill()
            sleeper.wait()
    assert kept["why"] == f"in use: process {sleeper.pid}"
    assert keeping.collect(site, {}, "anna", dry=False)["gone"][0]["version"] == "2"


def test_days_pass_before_an_old_version_goes(site: Site) -> None:
    patient = Site(site.root, None, keep=1, keep_days=1, images={})
    published(site, "1")
    published(site, "2")
    assert keeping.collect(patient, {}, "anna", dry=False)["gone"] == []
    found = Registry(site.root)
    long_ago = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    aged = [Entry(**{**vars(it), "followed": long_ago if it.followed else ""})
            for it in found.entries]  # fmt: skip
    found.save(aged, found.current)
    assert [it["version"] for it in keeping.collect(patient, {}, "anna", False)["gone"]] == ["1"]


def test_what_nothing_followed_stays(site: Site) -> None:
    """As where a node that kept copies has become the build host."""
    for version in ("1", "2", "3", "4"):
        published(site, version)
    found = Registry(site.root)
    copies = [Entry(**{**vars(it), "followed": ""}) for it in found.entries]
    found.save(copies, found.current)
    assert keeping.collect(site, {}, "anna", dry=False) == {"gone": [], "kept": []}


def test_what_users_may_have_is_not_taken_away(site: Site) -> None:
    published(site, "1")
    published(site, "2")
    with pytest.raises(Refused, match="slurmstack image publish small --version 1"):
        keeping.remove(site, "small", "2", {}, "anna")
    with pytest.raises(Refused, match="small 1 is in use: job 12"):
        keeping.remove(site, "small", "1", {"small+1.sqsh": ["job 12"]}, "anna")
    keeping.remove(site, "small", "1", {}, "anna")
    # Jobs name the current one by its short name.
    with pytest.raises(Refused, match="small 2 is in use: job 13"):
        keeping.remove(site, "small", "2", {"small.sqsh": ["job 13"]}, "anna")
    keeping.remove(site, "small", "2", {}, "anna")
    assert not [*site.root.glob("*.sqsh")]
    assert shown(site) == {}


def test_two_at_once_are_refused_with_who_has_it(site: Site) -> None:
    with build.working(site, "the build of small 1 by anna@admin"):
        with pytest.raises(Refused) as refused, build.working(site, "another"):
            pass
        words = f"the build of small 1 by anna@admin (pid {os.getpid()} on {os.uname().nodename}"
        assert str(refused.value).startswith(words)
    with build.working(site, "another"):
        pass


def test_what_a_killed_build_left_goes_with_the_next(site: Site, tmp_path: Path) -> None:
    known = built(site, "1")
    left = site.root / ".candidates/small+1+ffffffffffff.sqsh"
    left.write_bytes(b"no json names it")
    (site.root / ".candidates/.part").write_bytes(b"half")
    (site.root / "base-images/.abc.part").write_bytes(b"half")
    (tmp_path / "work/build/rootfs").mkdir(parents=True)
    with build.working(site, "a build") as (work, _):
        assert not [*work.iterdir()]
    assert [it.name for it in (site.root / ".candidates").iterdir() if it.suffix == ".sqsh"] == [
        Path(known["file"]).name
    ]
    assert not [*(site.root / "base-images").iterdir()]
    assert not [*site.root.glob(".candidates/.part")]


class _Killed(BaseException):
    """As SIGKILL: nothing after it is done."""


def _steps(monkeypatch: pytest.MonkeyPatch, last: int) -> Callable[[], int]:
    """Ends the program at the moment before its step LAST on the disk."""
    count = 0

    def stepping(does: Callable[..., Any]) -> Callable[..., Any]:
        def step(*words: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count == last:
                raise _Killed
            return does(*words, **more)

        return step

    for name in ("replace", "unlink", "symlink_to"):
        monkeypatch.setattr(Path, name, stepping(getattr(Path, name)))
    return lambda: count


@pytest.mark.parametrize("last", range(1, 16))
def test_killed_at_any_moment_the_next_call_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    published(site, "1", b"first")
    tried(site, built(site, "2", b"second"))
    with monkeypatch.context() as patched:
        count = _steps(patched, last)
        try:
            keeping.publish(site, "small", "", ["true"], "anna")
        except _Killed:
            assert count() == last
        else:
            assert last > count()
    # What users see is one of both, whole, and known to the registry.
    found = {it["version"]: it for it in keeping.listed(site, quick=False)["published"]}
    assert not any(it["wrong"] for it in found.values())
    assert (site.root / "small.sqsh").read_bytes() in (b"first", b"second")
    # Whoever repeats it gets there, if it was not done already.
    if shown(site)["small"]["current"] != "2":
        keeping.publish(site, "small", "", ["true"], "anna")
    else:
        keeping.publish(site, "small", "2", [], "anna")
    assert (site.root / "small.sqsh").read_bytes() == b"second"
    with build.working(site, "a build"):
        pass
    told = keeping.listed(site, quick=False)
    assert (told["strangers"], [it["wrong"] for it in told["published"]]) == ([], ["", ""])


def test_a_registry_by_hand_is_named(site: Site) -> None:
    published(site, "1")
    (site.root / "registry.yaml").write_text("images:\n  small: {current: 1\n")
    with pytest.raises(Refused, match=r"registry.yaml is not as slurmstack wrote it"):
        keeping.listed(site, quick=True)


def entry_of(site: Site, version: str) -> dict[str, Any]:
    found = Registry(site.root).find("small", version)
    assert found is not None
    return vars(found)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    folder = tmp_path / "node"
    folder.mkdir()
    return folder


def pulled(
    site: Site, node: Path, version: str, limit: int = 1000, stay: Sequence[str] = ()
) -> dict[str, Any]:
    url = (site.root / f"small+{version}.sqsh").as_uri().replace("%2B", "+")
    done = pull.pull(node, entry_of(site, version), url, limit, stay)
    if Registry(site.root).current["small"] == version:
        pull.point(node, "small", version)
    return done


def test_a_node_fetches_once_and_compares(site: Site, node: Path) -> None:
    published(site, "1", b"first")
    assert pulled(site, node, "1")["what"] == "fetched"
    assert pulled(site, node, "1")["what"] == "there"
    assert (node / "small.sqsh").read_bytes() == b"first"
    # Changed behind our back on the node: fetched anew, and said.
    (node / "small+1.sqsh").write_bytes(b"worst")
    assert "fetched again" in pulled(site, node, "1")["what"]
    assert (node / "small+1.sqsh").read_bytes() == b"first"
    # Changed where it comes from: it is not taken.
    (node / "small+1.sqsh").unlink()
    (site.root / "small+1.sqsh").write_bytes(b"worst")
    with pytest.raises(Refused, match="expected sha256"):
        pulled(site, node, "1")
    assert not [it for it in node.iterdir() if it.name.startswith("small+")]
    assert not [*node.glob("*.part")]


def test_a_node_keeps_within_its_bound(site: Site, node: Path) -> None:
    published(site, "1", b"1" * 40)
    pulled(site, node, "1", limit=100)
    published(site, "2", b"2" * 40)
    pulled(site, node, "2", limit=100)
    published(site, "3", b"3" * 40)
    # What a job names stays; else the oldest that nothing stands for makes room.
    with pytest.raises(Refused, match="do not fit"):
        pulled(site, node, "3", limit=100, stay=["small+1.sqsh"])
    assert pulled(site, node, "3", limit=100)["gone"] == ["small+1.sqsh"]
    assert sorted(it.name for it in node.glob("small+*")) == ["small+2.sqsh", "small+3.sqsh"]
    with pytest.raises(Refused, match="a node keeps"):
        pulled(site, node, "1", limit=30)
    with (node / "small+2.sqsh").open("rb") as taken:
        sleeper = subprocess.Popen(["sleep", "60"], stdin=taken)
        try:
            with pytest.raises(Refused, match="do not fit"):
                pulled(site, node, "1", limit=100)
        finally:
            sleeper.kill()
            sleeper.wait()
    assert (node / "small.sqsh").read_bytes() == b"3" * 40


def test_a_node_forgets_what_is_published_no_more(site: Site, node: Path) -> None:
    published(site, "1")
    pulled(site, node, "1")
    published(site, "2")
    pulled(site, node, "2")
    done = pull.collect(node, ["small+2.sqsh"])
    assert [it["version"] for it in done["gone"]] == ["1"]
    assert [it.name for it in sorted(node.glob("*.sqsh"))] == ["small+2.sqsh", "small.sqsh"]
    # Its name stands for it here, until another one is here, or the name is published no more.
    (kept,) = pull.collect(node, ["small+3.sqsh"])["kept"]
    assert kept["why"] == "small stands for it there; slurmstack image pull small"
    pull.collect(node, [])
    assert not [*node.glob("*.sqsh")]


def test_a_name_changes_over_when_it_is_told_to(site: Site, node: Path) -> None:
    published(site, "1", b"first")
    url = (site.root / "small+1.sqsh").as_uri().replace("%2B", "+")
    pull.pull(node, entry_of(site, "1"), url, 1000, [])
    assert not (node / "small.sqsh").is_symlink()
    with pytest.raises(Refused, match="small 2 is not on this node"):
        pull.point(node, "small", "2")
    pull.point(node, "small", "1")
    assert (node / "small.sqsh").read_bytes() == b"first"


def test_what_is_tested_is_lent(site: Site, node: Path) -> None:
    known = built(site, "1", b"first")
    entry = {key: known[key] for key in ("name", "version", "file", "sha256", "size")}
    pull.lend(node, entry, (site.root / known["file"]).as_uri().replace("%2B", "+"), 1000)
    assert (node / known["file"]).read_bytes() == b"first"
    pull.give_back(node, known["file"])
    assert not [*(node / ".candidates").iterdir()]


SLURM = """\
#!{python}
import sys
words = sys.argv[1:]
if {name!r} == "squeue":
    print("12\\n13\\n14\\n15")
elif {name!r} == "sacct":
    print("12|srun --container-image=/opt/containers/small+1.sqsh true")
    print("15|srun --container-image=small:10 true")
elif words[:1] == ["write"] and words[2] == "13":
    print("#!/bin/sh\\nsrun apptainer exec /opt/containers/small.sqsh true")
"""


def test_jobs_name_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("squeue", "sacct", "scontrol"):
        (tmp_path / name).write_text(SLURM.format(python=sys.executable, name=name))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    names = ["small+1.sqsh", "small+10.sqsh", "small.sqsh", "all.sqsh"]
    assert used.by_jobs(names) == {
        "small+1.sqsh": ["job 12"], "small.sqsh": ["job 13"], "small+10.sqsh": ["job 15"],
    }  # fmt: skip
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'Unable to contact' >&2; exit 1\n")
    with pytest.raises(Refused, match="Unable to contact; jobs cannot be asked"):
        used.by_jobs(names)


def test_the_settings_of_this_host_are_read(tmp_path: Path) -> None:
    place = tmp_path / "images.json"
    with pytest.raises(Refused, match="run pulumi up"):
        Site.read(place)
    image = {
        "version": "1", "base": {"suite": "trixie"}, "script": "", "lock": "", "wheels": "",
        "environment": {}, "labels": {}, "tests": [],
    }  # fmt: skip
    told = {"root": "/opt/containers", "limit": None, "keep": 3, "keep_days": 14,
            "images": {"small": image}}  # fmt: skip
    place.write_text(json.dumps(told))
    found = Site.read(place)
    assert found.recipe("small").file == "small+1.sqsh"
    with pytest.raises(Refused, match="nosuch: no image of the settings; there are: small"):
        found.recipe("nosuch")


def test_an_image_is_whole_when_all_its_tests_passed() -> None:
    known = {"sha256": "a", "tested": "a", "tests": [{"run": "x", "passed": True, "words": ""}]}
    assert trial.whole(known, ["x"]) == ""
    assert trial.whole(known, ["x", "y"]) == "a test was not run: y"
