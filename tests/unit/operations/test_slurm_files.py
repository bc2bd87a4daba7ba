"""What differs between two versions of a file of Slurm's, line by line as Slurm reads it."""

from __future__ import annotations

import pytest

from operations.slurm_files import changes, known

CONF = "/etc/slurm/slurm.conf"
GRES = "/etc/slurm/gres.conf"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (CONF, "slurm.conf"),
        (GRES, "gres.conf"),
        ("/etc/slurm/plugstack.conf", None),
        # A copy of it that no daemon reads, such as the one that readers are shown.
        ("/srv/slurm.conf", None),
    ],
)
def test_whose_files_the_table_is_of(path: str, name: str | None) -> None:
    assert known(path) == name


@pytest.mark.parametrize(
    ("path", "old", "new", "told"),
    [
        (CONF, "A=1\n\n# b\nMessageTimeout=1\n", "A=1\nMessageTimeout=2\n",
         ["slurm.conf MessageTimeout 1 → 2"]),
        (CONF, "MessageTimeout=1\n", "MessageTimeout=1   # as it was\n", []),
        (CONF, "MessageTimeout=1 InactiveLimit=2\n", "InactiveLimit=2\nMessageTimeout=3\n",
         ["slurm.conf MessageTimeout 1 → 3"]),
        # A value with words of its own is one value.
        (CONF, "", "LaunchParameters=a,b=c\n", ["slurm.conf LaunchParameters a,b=c"]),
        (CONF, "DownNodes=cn[1-2] Reason=a\n", "DownNodes=cn[1-2] Reason=b\n",
         ["slurm.conf down nodes cn[1-2] Reason a → b"]),
        (CONF, "NodeName=cn[1-2] Weight=1\n", "NodeName=cn1 Weight=1\nNodeName=cn2 Weight=2\n",
         ["slurm.conf Weight 1 → 2"]),
        # Two lines of gres.conf about one node: neither hides the other.
        (GRES, "NodeName=cn1 File=/dev/a\nNodeName=cn1 File=/dev/b\n",
         "NodeName=cn1 File=/dev/c\nNodeName=cn1 File=/dev/b\n",
         ["gres.conf File /dev/a; /dev/b → /dev/c; /dev/b"]),
    ],
)  # fmt: skip
def test_what_differs(path: str, old: str, new: str, told: list[str]) -> None:
    assert [str(change) for change in changes(path, old, new)] == told


def test_a_file_that_comes_or_goes_is_all_of_its_parameters() -> None:
    assert [str(it) for it in changes(CONF, None, "MessageTimeout=2")] == [
        "slurm.conf MessageTimeout 2"
    ]
    assert [str(it) for it in changes(CONF, "MessageTimeout=2", None)] == [
        "slurm.conf MessageTimeout 2 → not set"
    ]
