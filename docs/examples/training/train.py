"""A small model, trained on all ranks of a job by DistributedDataParallel: NCCL where there are
GPUs, Gloo on CPUs elsewhere. It goes on from the newest checkpoint in its folder.

The data are made up from the seed and the number of the step, so that a run that was interrupted
ends with the same numbers as one that was not.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import socket
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import job
import torch
import torch.distributed as distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

BATCH = 32
INPUTS = 16


def options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=Path, required=True, help="a folder on a share")
    parser.add_argument("--steps", type=int, default=200, help="of the whole training")
    parser.add_argument("--every", type=int, default=20, help="steps from checkpoint to checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=int, default=600, help="seconds to wait for other ranks")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each step")
    return parser.parse_args(words)


def device_of(place: job.Place) -> torch.device:
    """The rank's own GPU; the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    seen = torch.cuda.device_count()
    # With `srun --gpus-per-task` each rank sees its own alone.
    index = 0 if seen == 1 else place.local
    if index >= seen:
        raise SystemExit(
            f"{socket.gethostname()}: rank {place.rank} is number {place.local} of its node, which "
            f"gives {seen} GPUs: as many ranks as GPUs on a node"
        )
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def batch(seed: int, step: int, place: job.Place) -> tuple[torch.Tensor, torch.Tensor]:
    """What a rank reads for a step: another one for each, and the same whenever it is asked for."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) * 1_009 + place.rank)
    inputs = torch.randn(BATCH, INPUTS, generator=generator)
    return inputs, torch.sin(inputs[:, :1])


def resume(folder: Path, device: torch.device, place: job.Place) -> dict[str, Any] | None:
    """The newest whole checkpoint. Rank 0 says which one it is, so that all have the same."""

    def read(path: Path) -> dict[str, Any]:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        return state

    state = None
    chosen: list[str | None] = [None]
    if place.rank == 0 and (found := job.newest(folder, read)) is not None:
        chosen[0], state = str(found[0]), found[1]
    distributed.broadcast_object_list(chosen, src=0, device=device)
    if chosen[0] is not None and state is None:
        state = read(Path(chosen[0]))
    return state


def digest(model: nn.Module) -> str:
    """Of the weights: equal where they are, to the last bit."""
    summed = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        summed.update(f"{name} {value.tolist()}".encode())
    return summed.hexdigest()[:16]


def main(words: Sequence[str]) -> None:
    asked = options(words)
    place = job.place(os.environ)
    stop = job.Stop()
    device = device_of(place)
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        rank=place.rank, world_size=place.world, timeout=timedelta(seconds=asked.timeout),
    )  # fmt: skip
    print(f"rank {place.rank} of {place.world} on {socket.gethostname()}: {device}", flush=True)

    torch.manual_seed(asked.seed)
    network = nn.Sequential(nn.Linear(INPUTS, 64), nn.Tanh(), nn.Linear(64, 1)).to(device)
    ids = [device.index] if device.type == "cuda" else None
    model = DistributedDataParallel(network, device_ids=ids)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)

    done, loss = 0, float("nan")
    if (state := resume(asked.checkpoints, device, place)) is not None:
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done, loss = state["done"], state["loss"]
    began = done
    if place.rank == 0:
        print(f"going on after step {done} of {asked.steps}", flush=True)

    stopped = False
    while done < asked.steps and not stopped:
        inputs, wanted = (it.to(device) for it in batch(asked.seed, done, place))
        error = nn.functional.mse_loss(model(inputs), wanted)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        done += 1
        # Signals reach ranks at different moments; by the sum all leave after the same step.
        told = torch.tensor([error.item(), float(stop.by is not None)], device=device)
        distributed.all_reduce(told)
        loss, stopped = told[0].item() / place.world, told[1].item() > 0
        whole = done == asked.steps or done % asked.every == 0 or stopped
        if place.rank == 0:
            print(f"step {done} loss {loss:.6f}", flush=True)
            if whole:
                state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(),
                         "done": done, "loss": loss}  # fmt: skip
                job.save(asked.checkpoints, done, functools.partial(torch.save, state))
        time.sleep(asked.pause)

    ends = f"{done} steps, loss {loss:.9f}"
    print(f"rank {place.rank}: {ends}, weights {digest(network)}", flush=True)
    if place.rank == 0 and done >= asked.steps:
        (asked.checkpoints / "finished").write_text(f"{ends}\n")
    elif place.rank == 0:
        print(f"stopped by {stop.by.name if stop.by else 'another rank'} after step {done}, "
              f"{done - began} of them in this run", flush=True)  # fmt: skip
    # Nobody leaves while another one still needs it.
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
