"""The fabric, and what NCCL, Gloo and the rendezvous say of it."""

from __future__ import annotations

from on_node.diagnosis.rule import Rule

_NCCL = "NCCL User Guide, Troubleshooting"
_NCCL_ENV = "NCCL User Guide, Environment Variables"
_TORCH = "PyTorch, torch.distributed"
_ELASTIC = "PyTorch, torchrun (Elastic Launch)"

FABRIC: tuple[Rule, ...] = (
    Rule(
        "ib-port-down",
        "A port of the fabric went down, or flaps",
        "slurmstack node drain NODE; look at ibstat there and at the switch's port, reseat or "
        "replace cable and transceiver.",
        "NVIDIA MLNX_OFED, ibv_get_async_event(3)",
        {
            "output": (r"NET/IB ?: Got async (event|fatal event) ?: ?(port|local)",),
            "kernel": (
                r"mlx5_core .*(Link down|Port: \d+ Link (DOWN|INIT))",
                r"\bib\w*: link down",
                r"infiniband \w+: .*port \d+.*down",
            ),
            "node": (
                r"IbPortDown=",
                r"(Ib|Net)LinkDowned=\S*\+[1-9]",
                r"Health=(infiniband|links):",
            ),
        },
        "machine",
        0.88,
        "hardware",
    ),
    Rule(
        "link-errors",
        "A link of the node met errors while the job ran",
        "Look at the port on both sides (ibqueryerrors, ethtool -S): cable and transceiver. A few "
        "errors alone end no job; that what waited for this node timed out fits them.",
        "Linux, ABI/stable/sysfs-class-infiniband; sysfs-class-net-statistics",
        {"node": (r"LinkErrors=",)},
        "exception",
        0.4,
        "hardware",
        ("ib-port-down",),
    ),
    Rule(
        "ib-completion",
        "A transfer over InfiniBand or RoCE to a peer did not arrive",
        "The two named hosts cannot reach each other over these devices: fabric, subnet manager, "
        "NCCL_IB_GID_INDEX and routes on RoCE, ACS on the PCIe path; ib_write_bw between them "
        "shows it. Where the peer died first, that is the cause.",
        _NCCL + "; ibv_poll_cq(3)",
        {
            "output": (
                r"NET/IB[P]? ?: ?Got completion (from peer|with).*(error|status=) ?\d+",
                r"IBV_WC_RETRY_EXC_ERR",
                r"transport retry count(er)? exceeded",
                r"UCX +ERROR .*(mlx5|ib|rc|dc).*(error|failed|unreachable)",
                r"NET/OFI .*(Request completed with error|fi_\w+ failed|unreachable)",
            )
        },
        "cause",
        0.75,
        "operator",
        ("ib-port-down",),
    ),
    Rule(
        "memlock",
        "Memory could not be registered with the network card: the memlock limit",
        "ulimit -l in the job must be unlimited: slurmstack:limits with memlock infinity, and "
        "PropagateResourceLimitsExcept=MEMLOCK.",
        "ibv_reg_mr(3); slurm.conf(5), PropagateResourceLimitsExcept",
        {
            "output": (
                r"ibv_(reg_mr|create_cq|create_qp)\w* failed.*(Cannot allocate memory|error 12)",
                r"ibv_\w+.*with error Cannot allocate memory",
                r"RLIMIT_MEMLOCK",
                r"registered memory.*limit",
            )
        },
        confidence=0.85,
        owner="operator",
    ),
    Rule(
        "nccl-interface",
        "NCCL found no network of the name or kind that it was given, or chose a wrong one",
        "NCCL_SOCKET_IFNAME has to name an interface that each node has (ip -br address), such as "
        "^lo,docker; NCCL_NET a kind that is there (IB needs a card); in containers, too.",
        _NCCL_ENV + ", NCCL_SOCKET_IFNAME and NCCL_NET",
        {
            "output": (
                r"Bootstrap ?: no socket interface found",
                r"connecting to address\s+with family \d+ is neither AF_INET",
                r"No IP interface found",
                r"Failed to initialize any NET plugin|NCCL WARN Error: network \w+ not found",
                r"Unable to find address for: \w+",
                r"NCCL WARN Connect to (127\.0\.|172\.17\.|fe80:).* failed",
                r"connectFullMesh.*failed with \[?.*127\.0\.",
            )
        },
        confidence=0.92,
    ),
    Rule(
        "nccl-connect",
        "NCCL could not reach a peer's address",
        "A firewall between nodes, an address of an interface that others cannot reach "
        "(NCCL_SOCKET_IFNAME), or a peer that had ended before: see the other ranks.",
        _NCCL + ", Networking",
        {
            "output": (
                r"NCCL WARN.*(Connect to|socketStartConnect|socketPollConnect).*"
                r"(failed|refused|timed out|No route)",
                r"NCCL WARN Call to connect.*(failed|returned)",
                r"NCCL WARN.*ncclSocketConnect.*(refused|timed out|No route)",
            )
        },
        confidence=0.7,
        explained_by=("nccl-interface",),
    ),
    Rule(
        "gloo-connect",
        "Gloo's ranks could not reach each other at the addresses that they gave",
        "A rank gives the address that its node's own name leads to: `getent hosts $(hostname)` "
        "there must not say 127.0.1.1; else GLOO_SOCKET_IFNAME, an interface that each node has.",
        _TORCH + ", Common environment variables",
        {"output": (r"Gloo connectFullMesh failed with",)},
        "exception",
        0.75,
        explained_by=("nccl-interface",),
    ),
    Rule(
        "nccl-version",
        "Ranks or libraries have different versions of NCCL",
        "One image or environment for all nodes; LD_LIBRARY_PATH must not bring another NCCL than "
        "the one that PyTorch was built with.",
        _NCCL + "; nccl.h, ncclGetVersion",
        {
            "output": (
                r"NCCL version mismatch",
                r"Mismatched NCCL version",
                r"undefined symbol: nccl\w+",
                r"mismatched? (between )?NCCL versions",
                r"NCCL WARN.*(Wrong|different) NCCL version",
                r"NCCL library version .* (is )?incompatible|incompatible NCCL",
            )
        },
        confidence=0.93,
    ),
    Rule(
        "nccl-ranks",
        "Two ranks came with one number, or with one GPU",
        "Each rank needs a GPU and a number of its own: LOCAL_RANK with torch.cuda.set_device, "
        "--ntasks-per-node equal to the GPUs of a node, one launcher only (srun or torchrun).",
        _NCCL,
        {
            "output": (
                r"Duplicate GPU detected",
                r"rank \d+ of \d+ ranks has already checked in",
                r"Bootstrap Root : mismatch in rank count",
            )
        },
        confidence=0.92,
    ),
    Rule(
        "nccl-shm",
        "NCCL could not take shared memory of the node",
        "/dev/shm is full or small: clear it, give the container a larger one, or "
        "NCCL_SHM_DISABLE=1 to see the difference.",
        _NCCL + ", Shared Memory",
        {
            "output": (
                r"NCCL WARN.*(Error while creating shared memory|posix_fallocate failed)",
                r"NCCL WARN.*/dev/shm/nccl-\S+.*(failed|No space)",
            )
        },
        confidence=0.92,
    ),
    Rule(
        "collectives-differ",
        "Ranks called different collectives, or with other shapes",
        "The ranks' paths through the program differ: TORCH_DISTRIBUTED_DEBUG=DETAIL names the "
        "call; data of unequal length (drop_last, join) is the usual reason.",
        _TORCH + ", Debugging",
        {
            "output": (
                r"Detected mismatch between collectives on ranks",
                r"running collective: .* but Rank \d+ is running",
            )
        },
        confidence=0.93,
    ),
    Rule(
        "rank-missing",
        "A rank never started or never came to the meeting point",
        "Compare the number of ranks that joined with those asked for; look at the node whose rank "
        "wrote nothing, at MASTER_ADDR and MASTER_PORT, and at whether the first node can be "
        "reached from the others.",
        _ELASTIC + ", rendezvous",
        {
            "output": (
                r"Timed out after \d+ seconds waiting for clients",
                r"client socket has timed out after .* while trying to connect",
                r"RendezvousTimeoutError",
                r"RendezvousConnectionError",
                r"store based barrier on rank: \d+.*worker_count=",
                r"Timed out waiting for clients",
                r"connect\(\) timed out\. Original timeout",
                r"wait timeout after \d+ms, keys:",
                r"DEADLINE_EXCEEDED: Barrier timed out",
                r"Timed out initializing process group",
            )
        },
        "exception",
        0.75,
        explained_by=("port-in-use",),
    ),
    Rule(
        "port-in-use",
        "The port of the meeting point is taken on the node",
        "Another job or a process left behind has it: a port from the job's number "
        "(MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000))), or --rdzv-endpoint=localhost:0; one "
        "launcher a node.",
        _ELASTIC,
        {
            "output": (
                r"Address already in use",
                r"EADDRINUSE",
            )
        },
        confidence=0.9,
    ),
    Rule(
        "host-name",
        "The name of a host cannot be resolved",
        "MASTER_ADDR must be a name that each node resolves (getent hosts NAME there), or an "
        "address.",
        "getaddrinfo(3)",
        {
            "output": (
                r"Name or service not known",
                r"Temporary failure in name resolution",
                r"hostname of the client socket cannot be retrieved.*fatal",
                r"gethostbyname\(\) failed",
            )
        },
        confidence=0.7,
        unless=(r"huggingface|http|urllib|Max retries|pypi",),
    ),
    Rule(
        "nccl-system-error",
        "A system call of NCCL failed",
        "NCCL_DEBUG=WARN says which: run once more with it. Sockets and shared memory are the "
        "usual ones; where a peer ended first, that is the cause.",
        _NCCL + ", Errors",
        {"output": (r"unhandled system error", r"ncclSystemError")},
        "exception",
        0.6,
    ),
    Rule(
        "nccl-cuda-error",
        "A CUDA call of NCCL failed",
        "NCCL_DEBUG=WARN says which; no memory and a driver that is too old are the usual ones.",
        _NCCL + ", Errors",
        {"output": (r"unhandled cuda error", r"ncclUnhandledCudaError")},
        "exception",
        0.6,
    ),
    Rule(
        "nccl-invalid-usage",
        "NCCL was called in a way that it does not take",
        "Each rank needs a GPU of its own; NCCL_DEBUG=WARN says what is wrong.",
        _NCCL + ", Errors",
        {
            "output": (
                r"ncclInvalidUsage",
                r"NCCL error.*invalid (usage|argument)",
                r"ncclInternalError",
            )
        },
        "exception",
        0.55,
    ),
    Rule(
        "collective-timeout",
        "Ranks waited for one that did not come: a collective timed out",
        "The rank that is not in these lines, or is behind in its sequence number, is the one to "
        "look at: it hung, was slow (a checkpoint, data, validation on one rank), or is gone. "
        "TORCH_NCCL_TRACE_BUFFER_SIZE=2000 and TORCH_NCCL_DUMP_ON_TIMEOUT=1 record it; a longer "
        "timeout in init_process_group for slow steps.",
        _TORCH + ", init_process_group timeout",
        {
            "output": (
                r"Watchdog caught collective operation timeout",
                r"Timed out waiting \d+ms for (recv|send) operation",
                r"Timeout at NCCL work",
                r"monitoredBarrier.*timed out|failed to pass monitoredBarrier",
                r"Timeout waiting for key: default_pg",
                r"Some NCCL operations have failed or timed out",
                r"NcclWatchdog.*timeout|HeartbeatMonitor.*stuck|watchdog got stuck",
                r"NCCL communicator was aborted on rank",
                r"One or more tensors were submitted to be reduced.*Stalled",
            )
        },
        "symptom",
        0.7,
    ),
    Rule(
        "peer-closed",
        "A peer closed its connection: another rank had ended",
        "Look at the rank that ended first; this one only noticed.",
        _NCCL + ", Errors (ncclRemoteError)",
        {
            "output": (
                r"Connection (was )?closed by (remote )?peer",
                r"Connection reset by peer",
                r"ncclRemoteError",
                r"remote process exited or there was a network error",
                r"Broken pipe",
                r"Failed to (check|recv|get).*TCPStore|Failed to recv, got 0 bytes",
                r"Lost connection to (the )?(coordinator|store)",
                r"heartbeat timeout.*task|tasks? .* (has|have) (died|disconnected)",
                r"Horovod has been shut down",
            )
        },
        "symptom",
        0.4,
    ),
)
