"""The bus bandwidth of an all-reduce over all tasks of a step."""

from __future__ import annotations

import array
import os
import time

MIB = 1 << 20


def all_reduce(address: str, port: int) -> None:
    """By PyTorch, with NCCL where it sees GPUs and Gloo where not; else by MPI on CPUs."""
    rank, ranks = int(os.environ["SLURM_PROCID"]), int(os.environ["SLURM_NTASKS"])
    where = "between nodes" if int(os.environ["SLURM_NNODES"]) > 1 else "within the node"
    try:
        means, seconds, size = _by_torch(address, port, rank, ranks)
    except ImportError:
        try:
            means, seconds, size = _by_mpi(ranks)
        except ImportError:
            if rank == 0:
                text = "neither PyTorch nor mpi4py: slurmstack:acceptance.packages or image"
                print(f"reduced all-reduce {where}|not here|||{text}")
            return
    if rank == 0:
        # As nccl-tests counts (doc/PERFORMANCE.md): 2 (n - 1) / n of the bytes pass each bus.
        figure = 2 * (ranks - 1) / ranks * size / seconds / 1e9
        verdict = "proven" if means == "NCCL" else "stand-in"
        print(f"reduced all-reduce {where} ({means})|{verdict}|{figure:.6g}|GB/s|{ranks} ranks")


def _by_torch(address: str, port: int, rank: int, ranks: int) -> tuple[str, float, int]:
    import torch
    import torch.distributed as distributed

    gpu = torch.cuda.is_available()
    os.environ["USE_LIBUV"] = "0"
    if gpu:
        torch.cuda.set_device(int(os.environ["SLURM_LOCALID"]) % torch.cuda.device_count())
    distributed.init_process_group(
        "nccl" if gpu else "gloo",
        init_method=f"tcp://{address}:{port}?use_libuv=0", rank=rank, world_size=ranks,
    )  # fmt: skip
    values = torch.ones((256 if gpu else 16) * MIB // 4, device="cuda" if gpu else "cpu")
    best = float("inf")
    for _ in range(6):
        distributed.barrier()
        start = time.perf_counter()
        distributed.all_reduce(values)
        if gpu:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    distributed.destroy_process_group()
    means = "NCCL" if gpu else "Gloo on CPUs, not NCCL"
    return means, best, values.numel() * values.element_size()


def _by_mpi(ranks: int) -> tuple[str, float, int]:
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    if world.Get_size() != ranks:
        raise SystemExit(f"MPI knows {world.Get_size()} ranks of {ranks}: PMIx does not join them")
    mine, total = array.array("d", [1.0]) * (2 * MIB), array.array("d", [0.0]) * (2 * MIB)
    best = float("inf")
    for _ in range(5):
        world.Barrier()
        start = time.perf_counter()
        world.Allreduce(mine, total)
        best = min(best, time.perf_counter() - start)
    if total[0] != ranks or total[-1] != ranks:
        raise SystemExit(f"the sum over {ranks} ranks is {total[0]:g}")
    return "MPI on CPUs, not NCCL", best, 8 * len(mine)
