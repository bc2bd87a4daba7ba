"""The search for secrets on the operator's side, which a test in the lab relies on."""

from __future__ import annotations

from pathlib import Path

from tests.lab.secret_search import Secrets, here, marks

SECRET = bytes(range(7, 60))


def test_a_secret_is_found_in_any_file_but_not_below_folders_left_out(tmp_path: Path) -> None:
    secrets = Secrets()
    secrets.add("a key", marks(SECRET))
    disk = tmp_path / "checkout/.lab/test/nodes/cn01"
    left = [disk / "upper/etc/key", tmp_path / "other folder/odd\nname", tmp_path / "plain"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"before " + SECRET + b" after")
    (tmp_path / "clean").write_text("nothing")
    assert set(here(secrets, [tmp_path / "plain", tmp_path / "nowhere"])) == {str(left[2])}
    found = here(secrets, [tmp_path], [disk])
    assert found[str(left[2])] == ["a key"]
    assert not [path for path in found if "cn01" in path]
    assert len(here(secrets, [tmp_path])) > len(found)
