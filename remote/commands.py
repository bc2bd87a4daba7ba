"""The constant commands of `remote.Command`, and the applier they bring to a node.

The provider quotes the whole command in every error and stores it in every resource, so each is
short and holds neither node data nor secrets: those travel on stdin. Errors have the applier's form
`slurmstack: NODE: STEP: what was found; remedy`.
"""

from importlib.resources import files

#: Files of applier/, as they follow one another: the first sets up the shell, the last runs.
_PARTS = (
    "start", "bundle", "state", "users", "packages", "files", "scripts", "units", "answer",
    "remove", "main",
)  # fmt: skip

APPLIER: str = "\n".join(
    files(__package__).joinpath("applier", f"{part}.sh").read_text(encoding="utf-8")
    for part in _PARTS
)
"""stdin of INSTALL: the applier. Its last line is a mark that it came whole."""

_DIRECTORY = "/usr/local/lib/slurmstack"

INSTALL = f"""d=${{SLURMSTACK_ROOT-}}{_DIRECTORY}; n=$(uname -n); mkdir -p $d; cd $d && \
cat >.new && tail -n1 .new|grep -q '^# end' && chmod 755 .new && sync .new && mv -f .new apply&&\
s=$(sha256sum apply)||{{ rm -f .new; echo "slurmstack: $n: install: $d not written; connect as \
root, free space" >&2; exit 1; }}
echo '{{"node":"'$n'","role":"node","files":{{"'$d/apply'":{{"sha256":"'${{s%% *}}'"}}}}}}'"""
"""Takes the applier from stdin, puts it in place atomically, prints an answer with its sha256."""

UNINSTALL = f"""r=${{SLURMSTACK_ROOT-}}; a=$r{_DIRECTORY}/apply; n=$(uname -n)
for s in $(ls -t $r/var/lib/slurmstack 2>/dev/null|grep -v kept-); do
printf 'slurmstack-bundle 1\\nnode %s\\nrole %s\\nend\\n' $n $s|$a remove >/dev/null||exit 1; done
rm -rf $r{_DIRECTORY} $r/var/lib/slurmstack $r/run/slurmstack"""
"""Removes the applier and its state. A role that is still there, since it never came to its end and
so is not in Pulumi's state, is taken back first, the latest before the others."""

APPLY = f"a={_DIRECTORY}/apply; [ -x $a ]||{{ " + (
    'echo "slurmstack: $(uname -n): apply: no applier here (reinstalled?); '
    'take the node out of the settings, pulumi up, and put it back" >&2; exit 1; }; exec $a apply'
)
"""Applies the bundle on stdin, prints the answer."""

REMOVE = f"a={_DIRECTORY}/apply; [ ! -x $a ]||exec $a remove"
"""Takes back the role of the bundle on stdin. On a node without applier there is nothing to do."""
