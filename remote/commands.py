"""The constant commands of `remote.Command`, and the applier they bring to a node.

The provider quotes the whole command in every error and stores it in every resource, so each is
short and holds neither node data nor secrets: those travel on stdin. Errors have the applier's form
`slurmstack: NODE: STEP: what was found; remedy`.
"""

from importlib.resources import files

from remote.framing import BEGIN, END

#: Files of applier/, as they follow one another: the first sets up the shell, the last runs.
_PARTS = (
    "start", "bundle", "state", "users", "packages", "files", "validate", "scripts", "units",
    "withdraw", "answer", "remove", "compare", "main",
)  # fmt: skip

APPLIER: str = "\n".join(
    files(__package__).joinpath("applier", f"{part}.sh").read_text(encoding="utf-8")
    for part in _PARTS
)
"""stdin of INSTALL: the applier. Its last line is a mark that it came whole."""

_END = "# end of applier\n"


def applier(reapply: str | None = None) -> str:
    """stdin of INSTALL; with another word it is another text of the same applier."""
    if reapply is None:
        return APPLIER
    return f"{APPLIER.removesuffix(_END)}# reapply {reapply}\n{_END}"


_DIRECTORY = "/usr/local/lib/slurmstack"

APPLIER_PATH = f"{_DIRECTORY}/apply"

STATE_PATH = "/var/lib/slurmstack"
"""Where the applier keeps what it knows of each role."""

INSTALL = f"""d=${{SLURMSTACK_ROOT-}}{_DIRECTORY}; n=$(uname -n);mkdir -p $d;cd $d&&\
cat >.new&&tail -n1 .new|grep -q '^# end'&&chmod 755 .new&&sync .new&&mv -f .new apply&&\
s=$(sha256sum apply)||{{ rm -f .new; echo "slurmstack: $n: install: $d not written; be root, free \
space" >&2;exit 1; }}
echo "
{BEGIN}
time $(date -u +%FT%TZ)
node $n
role node
file ${{s%% *}} changed $d/apply
fact machine-id $(cat /etc/machine-id)
{END}" """
"""Takes the applier from stdin, puts it in place atomically, prints an answer with its sha256."""

_NOTHING = r"slurmstack-bundle 1\nnode %s\nrole %s\nend\n"
"""What printf(1) makes the bundle of, given node and role, with which a role is taken back."""

UNINSTALL = f"""r=${{SLURMSTACK_ROOT-}}; a=$r{_DIRECTORY}/apply; n=$(uname -n)
for s in $(ls -t $r/var/lib/slurmstack 2>/dev/null|grep -v kept-); do
printf '{_NOTHING}' $n $s|$a remove >/dev/null||exit 1; done
rm -rf $r{_DIRECTORY} $r/var/lib/slurmstack $r/run/slurmstack"""
"""Removes the applier and its state. A role that is still there, since it never came to its end and
so is not in Pulumi's state, is taken back first, the latest before the others."""

APPLY = f"exec {APPLIER_PATH} apply"
"""Applies the bundle on stdin, prints the answer."""

MISSING_APPLIER = (
    f"apply: {APPLIER_PATH} is missing (was the machine installed anew?); "
    "slurmstack node replace NODE puts all of it there again"
)
"""What is wrong on a node where `FIND_APPLIER` fails, and the remedy. It is no part of APPLY: the
provider quotes that with every error, whatever the cause."""


FIND_APPLIER = f"[ -x {APPLIER_PATH} ]"
"""Fails where the applier is missing."""


def take_back(node: str, role: str) -> str:
    """What takes a role back that is in no bundle, as typed on its node."""
    return f"printf '{_NOTHING}' {node} {role} | {APPLIER_PATH} remove"


def runs(seconds: float) -> str:
    """Prints a line `RECORD:WORDS` for each role that the applier has begun to apply within the
    last seconds: the error that it ended with, or nothing (it went well, or was cut off)."""
    return (
        "find /run/slurmstack -maxdepth 1 -name 'run-*' "
        f"-newermt '{round(seconds) + 2} seconds ago' -exec grep -H '' {{}} + 2>/dev/null\ntrue"
    )


RUN_OF = "/run/slurmstack/run-"
"""What a record is called, the role left out."""

REMOVE = f"[ ! -x {APPLIER_PATH} ]||exec {APPLIER_PATH} remove"
"""Takes back the role of the bundle on stdin. On a node without applier there is nothing to do."""
