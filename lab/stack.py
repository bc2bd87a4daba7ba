"""The lab's Pulumi stack: its settings file, its place, and what a shell needs to work with it."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from pathlib import Path

from lab.names import DEFAULT_NAME, Lab

#: Of the committed settings, which belongs to keys.PASSPHRASE.
SALT = "v1:wQZFOIM3mE4=:v1:b68io2xhKtoiC/Wo:o9dA6h96w59U6zqyVSTw2O06TaiXKw=="
_SALT = re.compile(rf"^encryptionsalt: (?!{re.escape(SALT)}$).*\n?", re.MULTILINE)
_SECRET = re.compile(r"^ *secure: ", re.MULTILINE)
_GENERATED = "# Made by `make lab` from Pulumi.lab.yaml; `make lab-down` removes it.\n"


def derive(text: str, lab: Lab) -> str:
    """Another lab's settings from the committed ones: addresses and paths replaced."""
    text = without_salt(text)
    # An address ends in a number, a host list of addresses in numbers in brackets.
    text = re.sub(r"\b10\.73\.0\.(?=[\d\[])", f"10.73.{lab.subnet}.", text)
    text = re.sub(rf"\.lab/{DEFAULT_NAME}(?=/|\b)", f".lab/{lab.name}", text)
    return _GENERATED + text


def without_salt(text: str) -> str:
    """The settings without a salt that `pulumi stack init` made; the committed one stays."""
    return _SALT.sub("", text)


def has_stack(lab: Lab, project: str) -> bool:
    """Whether the state folder knows the stack."""
    return (lab.state / ".pulumi" / "stacks" / project / f"{lab.name}.json").exists()


def prepare_settings(lab: Lab, project: str) -> None:
    """Make the settings of a further lab, and drop the salt of a stack that is gone."""
    committed = lab.checkout / f"Pulumi.{DEFAULT_NAME}.yaml"
    if not lab.stack_file.exists():
        lab.stack_file.write_text(derive(committed.read_text(), lab))
    elif not has_stack(lab, project):
        forget_salt(lab)


def remove_settings(lab: Lab) -> None:
    """Remove what the lab's stack left in the checkout beside the lab's folder."""
    # What the program found out about machines that are gone.
    facts = lab.checkout / ".slurmstack" / lab.name
    shutil.rmtree(facts, ignore_errors=True)
    with contextlib.suppress(OSError):
        facts.parent.rmdir()
    text = lab.stack_file.read_text() if lab.stack_file.exists() else ""
    if text.startswith(_GENERATED) and not holds_secrets(lab):
        lab.stack_file.unlink()
    else:
        # Committed, or a user's own by now.
        forget_salt(lab)


def holds_secrets(lab: Lab) -> bool:
    """Whether somebody put secrets into the settings of a further lab: they outlive it."""
    return lab.stack_file.exists() and _SECRET.search(lab.stack_file.read_text()) is not None


def forget_salt(lab: Lab) -> None:
    """Give the committed settings back the form they had before `pulumi stack init`.

    Where nothing else changed since, the bytes kept from before are put back, as engines may
    write the rest of the file in a form of their own.
    """
    if not lab.stack_file.exists():
        return
    before, after = _kept(lab)
    text = lab.stack_file.read_text()
    if before.exists() and after.exists() and after.read_text() == text:
        lab.stack_file.write_text(before.read_text())
    elif without_salt(text) != text:
        lab.stack_file.write_text(without_salt(text))


def keep_before_init(lab: Lab) -> None:
    _kept(lab)[0].write_text(lab.stack_file.read_text())


def keep_after_init(lab: Lab) -> None:
    _kept(lab)[1].write_text(lab.stack_file.read_text())


def _kept(lab: Lab) -> tuple[Path, Path]:
    return lab.folder / "settings-before-init.yaml", lab.folder / "settings-after-init.yaml"


def environment(lab: Lab) -> dict[str, str]:
    """What Pulumi and SSH need to work on this lab, PATH left out. No value is a secret.

    PULUMI_STACK is not among them: `make lab` selects the stack, and a variable would outdo
    `pulumi stack select`.
    """
    return {
        "PULUMI_BACKEND_URL": f"file://{lab.state}",
        "PULUMI_CONFIG_PASSPHRASE_FILE": str(lab.passphrase),
        "PULUMI_HOME": str(lab.pulumi_home),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        # One node that fails must not keep the others from being changed.
        "PULUMI_CONTINUE_ON_ERROR": "true",
        "SSH_AUTH_SOCK": str(lab.agent_socket),
    }


def shell_exports(lab: Lab) -> str:
    """The environment as lines for a POSIX shell's eval."""
    programs = shlex.quote(str(lab.checkout / ".venv" / "bin"))
    lines = [
        f'case ":$PATH:" in *:{programs}:*) ;; *) export PATH={programs}:"$PATH" ;; esac',
        # One of these set would be taken instead of the lab's passphrase file.
        "unset PULUMI_CONFIG_PASSPHRASE PULUMI_STACK",
    ]
    for name, value in environment(lab).items():
        lines.append(f"export {name}={shlex.quote(value)}")
    return "\n".join(lines)
