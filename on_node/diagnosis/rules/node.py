"""What a node can lack: memory, disk, file systems, limits."""

from __future__ import annotations

from on_node.diagnosis.rule import Rule

_KERNEL = "Linux, Documentation/admin-guide/cgroup-v2.rst (memory)"
_ERRNO = "errno(3)"

NODE: tuple[Rule, ...] = (
    Rule(
        "host-oom",
        "The node's memory, or what the job had asked of it, ran out",
        "More --mem (or --mem-per-gpu); fewer DataLoader workers; see MaxRSS (sacct -j JOB -o "
        "JobID,MaxRSS,ReqMem). Where it asked for all of the node, the program grows.",
        "cgroup.conf(5), ConstrainRAMSpace; " + _KERNEL,
        {
            "output": (
                r"Detected \d+ oom[-_]kill event",
                r"oom-kill event\(s\) in",
                r"\btask \d+: Out Of Memory",
                r"Exceeded (job|step) memory limit",
                r"JOB \d+.*exceeded memory limit|memory limit .* being killed",
                r"MemoryError\b",
                r"Unable to allocate [\d.]+ \w+ for an array",
                r"DefaultCPUAllocator: (not enough|can't allocate) memory",
                r"OOM Killed",
                r"\[Errno 12\] Cannot allocate memory",
            ),
            "slurmd": (
                r"Detected \d+ oom[-_]kill event",
                r"Exceeded (job|step) memory limit|exceeded memory limit",
                r"StepId=\S+ memory used:\d+ limit:\d+ .*being killed",
            ),
            "kernel": (
                r"Memory cgroup out of memory: Killed process",
                r"Out of memory: Kill(ed)? process",
                r"oom-kill:constraint=",
            ),
            "sacct": (r"State=OUT_OF_ME",),
            "node": (r"CgroupOomKills=[1-9]",),
        },
        "machine",
        0.95,
        unless=(r"cuda",),
    ),
    Rule(
        "shm-full",
        "Shared memory (/dev/shm) ran out: a DataLoader's worker died of it",
        "Fewer workers or smaller batches; torch.multiprocessing.set_sharing_strategy("
        "'file_system'); a larger /dev/shm for the container (or none of its own: enroot and "
        "Apptainer use the node's); see what else lies there.",
        "PyTorch, torch.multiprocessing; shm_overview(7)",
        {
            "output": (
                r"DataLoader worker .* is killed by signal: Bus error",
                r"insufficient shared memory \(shm\)",
                r"unable to (open|write|mmap|resize).*shared memory object",
                r"unable to allocate shared memory",
                r"/dev/shm.*No space left on device|No space left on device.*/dev/shm",
                r"out of shared memory\. Please try to raise",
            ),
            "node": (r"DiskFull=/dev/shm\b",),
        },
        confidence=0.93,
        explained_by=("host-oom",),
    ),
    Rule(
        "disk-full",
        "A file system is full",
        "Make room where the job writes (df -h PATH, df -i PATH); keep fewer checkpoints. Where it "
        "is a node's own disk or /tmp, have the node looked at.",
        _ERRNO + " ENOSPC",
        {
            "output": (
                r"No space left on device",
                r"\bENOSPC\b",
                r"disk is full",
                # What torch.save says of it: a write failed, and which place it did not come to.
                r"basic_ios::clear: iostream error",
                r"enforce fail at inline_container\.cc:\d+\] \. unexpected pos \d+ vs \d+",
                r"PytorchStreamWriter failed writing file",
            ),
            "slurmd": (r"No space left on device",),
            "slurmctld": (r"No space left on device",),
            "kernel": (r"EXT4-fs.*No space|XFS.*No space",),
        },
        confidence=0.93,
        explained_by=("shm-full", "nccl-shm"),
        unless=(r"/dev/shm", r"joblib will operate in serial mode"),
    ),
    Rule(
        "disk-nearly-full",
        "A file system of the node is nearly full now",
        "df -h there; it may be what the job met, or what it left.",
        "statvfs(3)",
        {"node": (r"DiskFull=(?!/dev/shm)", r"Health=disk:")},
        "symptom",
        0.3,
        "operator",
    ),
    Rule(
        "quota",
        "The user's quota is used up",
        "Delete, or ask for more: quota -s (lfs quota on Lustre, beegfs-ctl --getquota).",
        _ERRNO + " EDQUOT",
        {"output": (r"Disk quota exceeded", r"\bEDQUOT\b")},
        confidence=0.96,
    ),
    Rule(
        "file-system",
        "A shared file system does not answer, or lost a file below the program",
        "Look at the server, and at mount and dmesg of the node; ESTALE: the file was replaced on "
        "another node while this one had it open.",
        _ERRNO + " ESTALE, EIO, ENOTCONN, EROFS",
        {
            "output": (
                r"Stale (NFS )?file handle",
                r"Transport endpoint is not connected",
                r"Cannot send after transport endpoint shutdown",
                r"\[Errno 5\] Input/output error",
                r"Read-only file system",
                r"Remote I/O error",
            ),
            "kernel": (
                r"nfs: server \S+ not responding",
                r"LustreError: .*(evicted|timed out)",
                r"Remounting filesystem read-only",
                r"blk_update_request: I/O error|Buffer I/O error|critical medium error",
                r"EXT4-fs error|XFS .*(Corruption|metadata I/O error)",
            ),
            "node": (r"Health=mount \S+:",),
        },
        "machine",
        0.82,
        "operator",
    ),
    Rule(
        "permission",
        "The program may not read or write a file",
        "See owner and mode of the named path on the compute node, where it may be another one "
        "than on the login node.",
        _ERRNO + " EACCES",
        {
            "output": (r"PermissionError: \[Errno 13\]", r"slurmstepd: error: .*Permission denied"),
            "slurmd": (r"Could not open (stdout|stderr) file.*Permission denied",),
        },
        confidence=0.75,
        explained_by=("container-folder", "not-executable"),
        unless=(r"pyxis|enroot", r"execve"),
    ),
    Rule(
        "too-many-files",
        "The program has too many files open",
        "ulimit -n in the job; slurmstack:limits nofile; fewer DataLoader workers, or "
        "set_sharing_strategy('file_system').",
        _ERRNO + " EMFILE",
        {
            "output": (
                r"Too many open files",
                r"received 0 items of ancdata",
            )
        },
        confidence=0.9,
    ),
    Rule(
        "too-many-processes",
        "No process or thread could be made any more",
        "ulimit -u, TasksMax of slurmd's unit and pids.max of the job's cgroup; OMP_NUM_THREADS, "
        "OPENBLAS_NUM_THREADS and fewer workers.",
        _ERRNO + " EAGAIN; fork(2)",
        {
            "output": (
                r"can't start new thread",
                r"fork: (retry: )?Resource temporarily unavailable",
                r"pthread_create failed.*Resource temporarily unavailable",
                r"BlockingIOError: \[Errno 11\]",
            ),
            "kernel": (r"cgroup: fork rejected by pids controller",),
        },
        confidence=0.88,
    ),
    Rule(
        "machine-check",
        "The node's own memory or processor reported an uncorrected error",
        "slurmstack node drain NODE; the machine's event log (ipmitool sel list) names the part.",
        "Linux, Documentation/admin-guide/RAS",
        {
            "kernel": (
                r"mce: .*(Uncorrected|Hardware Error|Fatal)",
                r"Hardware Error\]: .*(uncorrected|fatal)",
                r"EDAC .*UE ",
                r"Memory failure: 0x\w+: .*(Killing|recovery action)",
            )
        },
        "machine",
        0.92,
        "hardware",
    ),
    Rule(
        "kernel-hang",
        "The node's kernel was stuck",
        "slurmstack node drain NODE; look at what the stack names (a driver, a file system).",
        "Linux, Documentation/admin-guide/lockup-watchdogs.rst",
        {
            "kernel": (
                r"soft lockup - CPU",
                r"rcu: .*detected stall",
                r"Kernel panic",
                r"BUG: unable to handle",
                r"hung_task|blocked for more than \d+ seconds",
            )
        },
        "machine",
        0.6,
        "operator",
        ("file-system", "xid-79", "xid-119"),
    ),
)
