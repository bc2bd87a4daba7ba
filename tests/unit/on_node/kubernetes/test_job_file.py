"""Headers of job files, read strictly: hostile ones, and those that people write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from on_node.kubernetes.job_file import MAX_SIZE, Image, read

HEAD = "#!/bin/bash\n"


def mistakes(*lines: str) -> list[str]:
    _, found = read((HEAD + "\n".join(lines) + "\n").encode())
    return [str(it) for it in found]


def test_what_people_write_is_right() -> None:
    text = """\
#!/bin/bash
# A comment of the user's.
#SBATCH --job-name=train --partition gpu
#SBATCH -c 8 -N1
#SBATCH --mem=64G   # a lot
#SBATCH --gres=gpu:h100:2
#SBATCH --constraint="a&(b|c)"
#SBATCH --array=0-15%4
#SBATCH --dependency=afterok:12:13?afterany:14
#SBATCH --exclusive
#SBATCH --comment="run of tuesday"

#K8S_IMAGE=nas-hub.local:5407/pytorch:2.0-cuda11.8
#K8S_WORKDIR = /workspace
#K8S_SCRIPT=/mnt/nas/scripts/train.py
python /mnt/nas/scripts/train.py
# SBATCH is spoken of here.
"""
    job, found = read(text.encode())
    assert found == []
    assert {name: value for name, (value, _) in job.options.items()} == {
        "job-name": "train", "partition": "gpu", "cpus-per-task": "8", "nodes": "1", "mem": "64G",
        "gres": "gpu:h100:2", "constraint": "a&(b|c)", "array": "0-15%4",
        "dependency": "afterok:12:13?afterany:14", "exclusive": "", "comment": "run of tuesday",
    }  # fmt: skip
    assert (job.line("mem"), job.value("time"), job.line("time")) == (5, None, 0)
    assert job.image == Image("nas-hub.local:5407", "pytorch", "2.0-cuda11.8")
    assert job.kubernetes["WORKDIR"] == ("/workspace", 14)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("#SBATCH --tyme=1", "line 2: --tyme is not known here; is --time meant?"),
        ("#SBATCH --wait", "line 2: --wait is not known here"),
        ("#SBATCH --uid=0", "line 2: --uid is not known here"),
        ("#SBATCH --wrap=id", "line 2: --wrap is not known here"),
        ("#SBATCH --mem", "line 2: --mem has no value"),
        ("#SBATCH", "line 2: expected an option, such as --partition=gpu"),
        ("#SBATCHES", "line 2: expected a blank behind #SBATCH"),
        ("#SBATCH gpu", "line 2: 'gpu' is no option of sbatch; expected --NAME=VALUE"),
        ('#SBATCH --comment="a', "line 2: a quote is not closed"),
        ('#SBATCH --comment "#" --uid 0', "line 2: quotes and a comment in one header"),
        ("#SBATCH --output=/srv/x#/../../etc/y", "line 2: --output: '#' is nothing for a header"),
        ("#SBATCH --job-name=$(reboot)", "line 2: --job-name: '$' is nothing for a header"),
        ("#SBATCH --job-name=`id`", "line 2: --job-name: '`' is nothing"),
        ("#SBATCH --job-name=a;id", "line 2: --job-name: ';' is nothing"),
        ("#SBATCH --constraint=a&&b", "line 2: --constraint: '&&' is nothing"),
        ("#SBATCH --mem=1G|2G", "line 2: --mem: '|' is nothing"),
        ("# SBATCH --mem=1G", "line 2: is no header as it stands"),
        ("#sbatch --mem=1G", "line 2: is no header as it stands"),
        (" #SBATCH --mem=1G", "line 2: is no header as it stands"),
        ("#k8s_image=a/b:c", "line 2: is no header as it stands"),
        ("#PBS -l mem=1G", "line 2: is of another scheduler: write #SBATCH"),
        ("#K8S_IMAGE=", "line 2: expected #K8S_NAME=VALUE"),
        ("#K8S_IMAG=a/b:c", "line 2: K8S_IMAG is not known here; is K8S_IMAGE meant?"),
        ("#K8S_IMAGE=pytorch", "line 2: K8S_IMAGE: expected REGISTRY/NAME:TAG"),
        ("#K8S_IMAGE=hub:5407/pytorch", "line 2: K8S_IMAGE: hub:5407/pytorch names no tag"),
        ("#K8S_IMAGE=hub/../x:1", "line 2: K8S_IMAGE: expected REGISTRY/NAME:TAG"),
        ("#K8S_IMAGE=hub/a:1 --privileged", "line 2: K8S_IMAGE: expected REGISTRY/NAME:TAG"),
        ("#K8S_SCRIPT=train.py", "line 2: K8S_SCRIPT: expected a whole path"),
        ("#K8S_WORKDIR=/w;id", "line 2: K8S_WORKDIR: ';' is nothing"),
    ],
)
def test_one_mistake_is_one_line(line: str, told: str) -> None:
    (found,) = mistakes(line)
    assert found.startswith(told)


def test_all_mistakes_at_once_in_the_order_of_their_lines() -> None:
    found = mistakes(
        "#SBATCH --mem=1G", "#K8S_IMAGE=hub/a:1", "#SBATCH --mem=2G", "#K8S_IMAGE=hub/b:1",
        "echo", "#SBATCH --time=1",
    )  # fmt: skip
    assert found == [
        "line 4: --mem is in line 2 already",
        "line 5: K8S_IMAGE is in line 3 already",
        "line 7: is not read: sbatch stops at the first command, in line 6",
    ]


def test_a_line_ends_where_it_ends_for_sbatch() -> None:
    """What Python takes for the end of a line, too, hides no header, and makes none."""
    job, found = read(f"{HEAD}# a\u2028#SBATCH --mem=1G\n#SBATCH --time=1\x0b2\n".encode())
    assert "mem" not in job.options
    assert [str(it) for it in found] == [
        "line 3: --time: '\\x0b' is nothing for a header: no shell reads it"
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"#!/bin/sh\n\xff\n", "line 2: byte 11 is no UTF-8"),
        (b"#!/bin/sh\na\0b\n", "line 2: a zero byte: this is no text"),
        (b"echo\n", "line 1: expected an interpreter, such as #!/bin/bash"),
        (b"#!/bin/sh\r\necho\r\n", "line 1: has a carriage return: convert the file (dos2unix)"),
        (b"#!/bin/sh\n" + b"x" * MAX_SIZE, f"is larger than {MAX_SIZE} bytes"),
    ],
)
def test_what_is_no_batch_script(content: bytes, told: str) -> None:
    _, found = read(content)
    assert [str(it) for it in found] == [told]


def test_an_image_by_its_digest() -> None:
    digest = f"sha256:{'a' * 64}"
    job, found = read(f"{HEAD}#K8S_IMAGE=hub.example/a/b@{digest}\n".encode())
    assert (found, job.image) == ([], Image("hub.example", "a/b", digest))


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    job, found = read(content)
    assert found or job.text == content.decode()


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=40), max_size=6))
def test_no_header_has_what_a_shell_acts_on(lines: list[str]) -> None:
    text = HEAD + "".join(f"#SBATCH --comment={line}\n" for line in lines[:1])
    text += "".join(f"#K8S_WORKDIR=/{line}\n" for line in lines[1:2])
    job, found = read(text.encode("utf-8", "replace"))
    if not found:
        values = [value for value, _ in (*job.options.values(), *job.kubernetes.values())]
        assert not set("".join(values)) & set("$`;<>\\\"'!{}~\n#&|*?()")
