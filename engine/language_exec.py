"""The program's process: what pulumi-language-python-exec does, over the SDK's public functions.

Started by engine.program with that script's arguments, and the configuration on stdin. Ends with 32
when the program's error has been reported to the engine, 1 for a pulumi.RunError, and the program's
own code when it exits.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import runpy
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pulumi
import pulumi.runtime
from pulumi.runtime import stack
from pulumi.runtime.settings import SETTINGS, _get_rpc_manager

SDK = "3.260.0"
"""The version whose wait_for_rpcs the one here was written after; any other keeps its own."""


def user_traceback(program: Path) -> str:
    """The traceback from the program's own first frame on, or all of it."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    for i, frame in enumerate(frames):
        if Path(frame.filename).resolve() == program:
            return traceback.format_exc(limit=i - len(frames))
    return traceback.format_exc()


async def wait_for_rpcs() -> None:
    """The SDK's function of this name, with one look at each output. The SDK's own goes through
    all that are pending whenever one is done: the square of the resources."""
    manager = _get_rpc_manager()
    while True:
        while manager.rpcs:
            await asyncio.sleep(0)
            try:
                await manager.rpcs.pop()
            except Exception as error:
                if manager.unhandled_exception is None:
                    raise
                cause = manager.unhandled_exception
                raise error from cause.with_traceback(manager.exception_traceback)
        if manager.unhandled_exception is not None:
            raise manager.unhandled_exception.with_traceback(manager.exception_traceback)
        left: set[asyncio.Task[Any]] = set()
        ended: asyncio.Queue[asyncio.Task[Any]] = asyncio.Queue()
        while True:
            with SETTINGS.lock:
                new = list(SETTINGS.outputs)
                SETTINGS.outputs.clear()
            left.update(new)
            for output in new:
                output.add_done_callback(ended.put_nowait)
            if not left:
                break
            output = await ended.get()
            left.discard(output)
            with contextlib.suppress(stack.ResourceRegistrationFailed):
                await output
        if not manager.rpcs:
            return


def main() -> int:
    parser = argparse.ArgumentParser()
    names = "monitor engine project root_directory stack pwd dry_run parallel organization debug"
    for name in names.split():
        parser.add_argument(f"--{name}")
    parser.add_argument("program")
    args = parser.parse_args()

    given = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # what it starts finds an empty input
    pulumi.runtime.set_all_config(given["config"], given["secretKeys"])
    pulumi.runtime.configure(pulumi.runtime.Settings(
        project=args.project, stack=args.stack, monitor=args.monitor, engine=args.engine,
        parallel=int(args.parallel), dry_run=args.dry_run == "true",
        organization=args.organization, root_directory=args.root_directory,
    ))  # fmt: skip
    if version("pulumi") == SDK:
        stack.wait_for_rpcs = wait_for_rpcs  # type: ignore[assignment]
    if args.debug != "true":
        # About five messages a resource that nobody sees, a third of the time of a no-op.
        pulumi.log.debug = lambda *_, **__: None
    # The program makes objects to keep them: looking for garbage at every 700 finds little.
    gc.set_threshold(50_000)
    sys.argv = [args.program]
    if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
        sys.path.pop(0)  # run_path puts the program's own folder there
    os.chdir(args.pwd)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    # A registration waits in a thread of its own. Answers that come together, to many threads with
    # short turns, cost less than those that come one by one: for 768 resources without a change
    # 5.3 s of the processors, 6.7 s with 32 threads, 5.9 s with those and Python's usual 5 ms.
    sys.setswitchinterval(0.0002)
    executor = ThreadPoolExecutor(max_workers=max(int(args.parallel) * 4, 256))
    loop.set_default_executor(executor)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    program = Path(args.program).resolve()
    program = program / "__main__.py" if program.is_dir() else program

    def run() -> None:
        runpy.run_path(args.program, run_name="__main__")

    code = 1
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(run))
        code = 0
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
    except Exception:
        pulumi.log.error("Program failed with an unhandled exception:\n" + user_traceback(program))
        code = 32
    finally:
        executor.shutdown(wait=True)
        loop.close()
        sys.stdout.flush()
        sys.stderr.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
