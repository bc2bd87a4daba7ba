"""`pulumi preview`, `up`, `refresh` and `destroy`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any

from engine import config
from engine.api import PARALLEL, Cancel, Kind, Project, Request, Result
from engine.backend import crypter_of, manifest
from engine.cli import BOOLEAN, Invocation
from engine.display import Display, Style
from engine.display.steps import UPDATE_KINDS
from engine.errors import CANCELED, CHANGES_UNEXPECTED, FAILED, REFUSED, CommandError
from engine.secrets import PassphraseCrypter
from engine.state import Snapshot, blind


def preview(call: Invocation) -> int:
    return _Operation(call, "update").preview()


def up(call: Invocation) -> int:
    return _Operation(call, "update").carry_out()


def refresh(call: Invocation) -> int:
    return _Operation(call, "refresh").carry_out()


def destroy(call: Invocation) -> int:
    return _Operation(call, "destroy").carry_out()


class _Operation:
    """One operation on one stack: what it works on, and its preview and execution."""

    def __init__(self, call: Invocation, kind: Kind) -> None:
        self.call, self.kind = call, kind
        self.yes = bool(call.flag("skip-preview")) or call.switch(
            "yes", "PULUMI_SKIP_CONFIRMATIONS"
        )
        if call.verb != "preview" and not (
            self.yes or call.flag("preview-only") or call.interactive
        ):
            raise CommandError(
                "--yes or --skip-preview or --preview-only must be passed in to proceed when "
                "running in non-interactive mode",
                FAILED if kind == "refresh" else REFUSED,
            )
        wish = str(call.flag("refresh", "false")).lower()
        if wish not in BOOLEAN:
            raise CommandError("unable to determine value for --refresh")
        self.refresh = BOOLEAN[wish]
        if call.flag("event-log") and not os.environ.get("PULUMI_DEBUG_COMMANDS"):
            raise CommandError("unknown flag: --event-log")
        self.ref = call.stack
        try:
            self.file = call.stack_file
            had_salt = self.file.salt
            self.crypter = self.file.crypter
            self.crypter.start()
            # The slow imports of an operation, beside the slow key.
            import engine.operation  # noqa: F401

            self.crypter.check()
            self.config, self.secret_keys = self.file.decrypted(call.filter)
        except CommandError as error:
            prefix = "getting stack configuration: get stack secrets manager: "
            raise CommandError(prefix + str(error)) from error
        if not had_salt:
            self.file.save()

    def preview(self) -> int:
        """Run dry and say what would be done."""
        snapshot = self._snapshot(self.call.backend.load(self.ref).deployment)
        return self._exit_code(asyncio.run(self._run(snapshot, dry_run=True)), "preview")

    def carry_out(self) -> int:
        """Preview, ask, do it, save it."""
        call, backend = self.call, self.call.backend
        if call.flag("preview-only"):
            return self.preview()
        with backend.lock(self.ref):
            checkpoint = backend.load(self.ref)
            snapshot = self._snapshot(checkpoint.deployment)
            if not call.flag("skip-preview"):
                result = asyncio.run(self._run(snapshot, dry_run=True))
                if code := self._exit_code(result, self.kind, final=False):
                    return code
                if not self.yes and not self._agreed():
                    return FAILED
            # An interrupted operation's journal becomes part of the checkpoint before the next
            # one begins a journal of its own.
            digest = checkpoint.digest
            if checkpoint.recovered:
                digest = backend.save(self.ref, self._deployment(snapshot))
            started = int(time.time())
            result = asyncio.run(self._run(snapshot, dry_run=False, digest=digest))
            self._save(result, started)
        return self._exit_code(result, self.kind)

    def _snapshot(self, deployment: dict[str, Any] | None) -> Snapshot:
        """Raises CommandError where the deployment is not one, or of another secrets provider."""
        try:
            before: PassphraseCrypter = self.crypter
            if deployment and deployment.get("secrets_providers"):
                before = crypter_of(deployment)
                if before.state == self.crypter.state:
                    before = self.crypter
            snapshot = Snapshot.load(deployment, before)
            if before is not self.crypter and deployment:
                # Other secrets provider: every secret is written anew.
                snapshot = Snapshot.load(snapshot.dump(None), self.crypter)
            return snapshot
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CommandError(
                f"failed to load checkpoint of {self.ref.name}: {type(error).__name__}: {error}"
            ) from error

    def _deployment(self, snapshot: Snapshot) -> dict[str, Any]:
        provider = {"type": "passphrase", "state": {"salt": self.crypter.state}}
        dumped = snapshot.dump(self.crypter)
        head = {"manifest": manifest(), "secrets_providers": provider}
        return head | {k: v for k, v in dumped.items() if k not in head}

    def _save(self, result: Result, started: int) -> None:
        call, backend = self.call, self.call.backend
        try:
            backend.save(self.ref, self._deployment(result.snapshot))
        except CommandError as error:
            raise CommandError(
                f"writing snapshot: {error}; what was done is kept in "
                f"{backend.journal(self.ref)} and is taken up by the next operation"
            ) from error
        values = self.file.values
        flags = {f"pulumi.flag.{k}": "true" if v is True else "set" for k, v in call.flags.items()}
        kind = call.flag("exec-kind", "cli")
        environment = {"exec.kind": kind, "pulumi.engine": "slurmstack embedded"}
        backend.record(self.ref, {
            "kind": self.kind, "startTime": started, "message": call.flag("message", ""),
            "environment": environment | flags,
            "config": {k: config.decrypt(v, lambda c: {"secure": c}) for k, v in values.items()},  # type: ignore[arg-type, return-value]
            "version": 0,
            "result": "succeeded" if result.result == "succeeded" else "failed",
            "endTime": int(time.time()), "resourceChanges": result.changes,
        })  # fmt: skip

    def _display(self, dry_run: bool) -> Display:
        call, style = self.call, self._style(dry_run)
        if call.flag("json"):
            from engine.display.events import PreviewJsonDisplay

            return PreviewJsonDisplay(style)
        label = f"Previewing {self.kind}" if dry_run else UPDATE_KINDS[self.kind]
        print(f"{label} ({self.ref.name}):", flush=True)
        if call.flag("diff"):
            from engine.display.diff import DiffDisplay

            return DiffDisplay(style)
        from engine.display.progress import ProgressDisplay

        return ProgressDisplay(style, call.project.name, self.ref.name)

    def _style(self, dry_run: bool) -> Style:
        flag = self.call.flag
        return Style(
            show_secrets=bool(flag("show-secrets")), outputs=not flag("suppress-outputs"),
            debug=bool(flag("debug")), preview=dry_run, truncate=self.kind == "update",
        )  # fmt: skip

    async def _run(self, snapshot: Snapshot, dry_run: bool, digest: str = "") -> Result:
        from engine.display.events import EventLog, Stamp
        from engine.journal import Journal
        from engine.operation import run

        call, project = self.call, self.call.project
        display, stamp, cancel = self._display(dry_run), Stamp(), Cancel()
        log = EventLog(call.flag("event-log")) if call.flag("event-log") else None
        journal: Journal | None = None

        def emit(event: dict[str, Any]) -> None:
            if log:
                log.write(stamp(event))
            if not (call.flag("json") or call.flag("show-secrets")):
                event = blind(event)  # one secret is as any other: no difference is to be seen
            display.show(event)

        def interrupted() -> None:
            cancel.set()
            if cancel.level == 1:
                message = (
                    "^C received; cancelling. If you would like to terminate immediately, press "
                    "^C again.\nNote that terminating immediately may lead to orphaned resources "
                    "and other inconsistencies.\n"
                )
                emit({"stdoutEvent": {"message": message, "color": "never"}})

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted)
        try:
            if not dry_run:
                path = call.backend.journal(self.ref)
                try:
                    journal = Journal(path, self.crypter, digest)
                except OSError as error:
                    raise CommandError(f"cannot write {path}: {error.strerror}") from error
            variable = os.environ.get("PULUMI_PARALLEL", "")
            parallel = call.flag("parallel", int(variable) if variable.isdigit() else 0)
            request = Request(
                Project(project.name, project.root, project.main, project.virtualenv),
                self.ref.name, self.config, self.secret_keys, operation=self.kind,
                dry_run=dry_run, parallel=parallel if parallel > 0 else PARALLEL,
                targets=(*call.flag("target", ()), *call.flag("target-replace", ())),
                target_dependents=bool(call.flag("target-dependents")),
                replace=(*call.flag("replace", ()), *call.flag("target-replace", ())),
                refresh=self.refresh,
                continue_on_error=call.switch("continue-on-error", "PULUMI_CONTINUE_ON_ERROR"),
                clear_pending_creates=bool(call.flag("clear-pending-creates")),
                debug=bool(call.flag("debug")), filter=call.filter,
            )  # fmt: skip
            return await run(request, snapshot, emit, journal, cancel)
        finally:
            display.close()
            if journal:
                journal.close()
            if log:
                log.close()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    def _agreed(self) -> bool:
        """Ask whether to go on. Only `yes` is yes."""
        print(f"Do you want to perform this {self.kind}? [yes/no] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() == "yes":
            return True
        print(f"confirmation declined, not proceeding with the {self.kind}")
        return False

    def _exit_code(self, result: Result, what: str, final: bool = True) -> int:
        if result.unsupported:
            raise CommandError(result.unsupported, REFUSED)
        if result.result == "canceled":
            raise CommandError(f"{what} cancelled", CANCELED)
        if result.result == "failed":
            return FAILED
        changed = any(count for op, count in result.changes.items() if op not in ("same", "read"))
        if final and changed and self.call.flag("expect-no-changes"):
            raise CommandError(
                f"no changes were expected for {what} but changes were proposed", CHANGES_UNEXPECTED
            )
        return 0
