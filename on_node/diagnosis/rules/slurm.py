"""What Slurm does to jobs and says of them, launchers, and containers."""

from __future__ import annotations

from on_node.diagnosis.rule import Rule

_SQUEUE = "squeue(1), Job State Codes"
_PYXIS = "NVIDIA Pyxis and Enroot, README"
_CONTAINERS = ("image-bad", "image-denied", "container-folder", "container-start")


def _said_by_runtime(*patterns: str) -> dict[str, tuple[str, ...]]:
    """In the job's output, or, of a step that never came to have one, in slurmd's log."""
    return {"output": patterns, "slurmd": patterns}


SLURM: tuple[Rule, ...] = (
    Rule(
        "walltime",
        "The job was ended at its time limit",
        "More --time (the partition's MaxTime is the limit), and checkpoints; --signal=B:USR1@300 "
        "lets the program save before. Where it stood still before, look at what hung.",
        _SQUEUE + ": TIMEOUT",
        {
            "output": (r"DUE TO TIME LIMIT",),
            "slurmd": (r"DUE TO TIME LIMIT",),
            "slurmctld": (r"Time limit exhausted for JobId",),
            "sacct": (r"State=TIMEOUT",),
        },
        "slurm",
        0.97,
        explained_by=("collective-timeout",),
    ),
    Rule(
        "preempted",
        "The job had to give way to another of higher priority",
        "Submit it with --requeue and have it go on from a checkpoint, or use a QOS or partition "
        "that is not preempted.",
        _SQUEUE + ": PREEMPTED; slurm.conf(5), PreemptMode",
        {
            "output": (r"DUE TO PREEMPTION",),
            "slurmd": (r"DUE TO PREEMPTION",),
            "slurmctld": (r"preempted JobId|JobId=\d+ has been (preempted|requeued.*preempt)",),
            "sacct": (r"State=PREEMPTED",),
        },
        "slurm",
        0.98,
    ),
    Rule(
        "requeued",
        "The job was put back into the queue, by its own wish or a person's",
        "scontrol requeue, a launcher that requeues itself before the time limit (submitit), or "
        "RequeueExit: see who asked in slurmctld's log.",
        "scontrol(1), requeue",
        {
            "output": (r"DUE TO JOB REQUEUE",),
            "slurmd": (r"DUE TO JOB REQUEUE",),
            "sacct": (r"State=REQUEUED",),
        },
        "slurm",
        0.9,
        explained_by=("preempted", "node-fail", "prolog"),
    ),
    Rule(
        "node-fail",
        "A node of the job went down",
        "See why: its console, its kernel's log before the end, power. The job goes on elsewhere "
        "with --requeue.",
        _SQUEUE + ": NODE_FAIL",
        {
            "output": (
                r"DUE TO NODE FAILURE",
                r"srun: error: Node failure on",
                r"srun: error: Node .* (down|not responding)",
            ),
            "slurmd": (r"DUE TO NODE FAILURE",),
            "slurmctld": (
                r"Killing JobId=\d+ on failed node",
                r"requeue.*JobId=\d+ due to failure of node",
                r"JobId=\d+ .*NodeFail|node_fail.*JobId",
                r"Nodes? \S+ not responding, setting DOWN",
            ),
            "sacct": (r"State=NODE_FAIL", r"Reason=NodeDown"),
        },
        "slurm",
        0.93,
        "operator",
    ),
    Rule(
        "cancelled",
        "A person or a program cancelled the job",
        "sacct says by which user (State=CANCELLED by UID).",
        "scancel(1)",
        {
            "sacct": (r"^State=CANCELLED",),
            "output": (r"\*\*\* JOB \S+ ON \S+ CANCELLED AT \S+ \*\*\*",),
        },
        "exception",
        0.6,
        explained_by=("walltime", "preempted"),
    ),
    Rule(
        "step-cancelled",
        "A step was cancelled: by srun for a rank that ended badly, or by scancel",
        "srun cancels a step with --kill-on-bad-exit, or --wait after its first rank has ended: "
        "look for that rank. Else ask whoever may cancel steps of this job.",
        "srun(1), --kill-on-bad-exit and --wait",
        {
            "sacct": (r"^Step=\S+ State=CANCELLED",),
            "output": (r"\*\*\* STEP \S+ ON \S+ CANCELLED AT \S+ \*\*\*",),
        },
        "symptom",
        0.4,
        explained_by=("walltime", "preempted", "cancelled", "killed"),
    ),
    Rule(
        "prolog",
        "The prolog failed on a node, so that the job could not begin there",
        "The node is drained: run the prolog by hand there, mend, slurmstack node resume NODE.",
        "slurm.conf(5), Prolog",
        {
            "output": (r"Job prolog failed|prolog (failed|error)|Prolog failure on node",),
            "slurmd": (
                r"\[job \d+\] prolog failed",
                r"prolog.*(exited with|returned) (status )?\S*[1-9]",
                r"Could not run prolog|spank_prolog.*failed",
            ),
            "slurmctld": (
                r"prolog_(complete|running).*(error|failed)",
                r"Prolog (error|fail|launch fail)",
            ),
            "sacct": (r"Reason=Prolog",),
            "node": (r"Reason=Prolog error",),
        },
        "slurm",
        0.9,
        "operator",
        ("disk-full", "munge"),
        unless=(r"task_?prolog",),
    ),
    Rule(
        "task-prolog",
        "The TaskProlog failed, so that a task did not begin",
        "Run it by hand on the node as the job's user; where the step was ended just then, see "
        "what ended it.",
        "slurm.conf(5), TaskProlog",
        {
            "output": (r"TaskProlog failed", r"task_prolog did not exit normally"),
            "slurmd": (r"TaskProlog failed", r"task_prolog did not exit normally"),
        },
        "symptom",
        0.6,
        "operator",
    ),
    Rule(
        "epilog",
        "The epilog failed on a node: it is drained, the job itself was done",
        "Run the epilog by hand there, mend, then slurmstack node resume NODE.",
        "slurm.conf(5), Epilog",
        {
            "slurmd": (r"epilog failed|epilog.*exited with status \S*[1-9]",),
            "slurmctld": (r"epilog_complete.*(error|failed)|Epilog error",),
            "node": (r"Reason=Epilog error",),
        },
        "symptom",
        0.4,
        "operator",
    ),
    Rule(
        "munge",
        "A host does not accept another one's MUNGE credentials",
        "systemctl status munge on the hosts named; one key everywhere (slurmstack drift), clocks "
        "within 5 minutes.",
        "munged(8); Slurm, Authentication Plugins",
        {
            "output": (
                r"Munge (encode|decode) failed",
                r"Protocol authentication error",
                r"Invalid authentication credential",
                r"auth_g_verify: .*failed|auth/munge.*(error|fail)",
            ),
            "slurmd": (
                r"Munge (encode|decode) failed",
                r"Protocol authentication error",
                r"auth_g_verify|authentication (failed|error)",
            ),
            "slurmctld": (r"Munge decode failed", r"Protocol authentication error"),
        },
        "slurm",
        0.85,
        "operator",
    ),
    Rule(
        "clock",
        "The clocks of two hosts differ too much",
        "timedatectl on the hosts named; a time server for all.",
        "munge(7): ENCODED and DECODED time",
        {
            "output": (r"Expired credential|Rewound credential",),
            "slurmd": (r"Expired credential|Rewound credential|check for out of sync clocks",),
            "slurmctld": (r"Expired credential|Rewound credential|out of sync clocks",),
        },
        "machine",
        0.85,
        "operator",
    ),
    Rule(
        "launch-fail",
        "Slurm could not start the job's step on a node",
        "See slurmd's lines: credentials, a user that the node does not know, a folder of slurmd "
        "that is full or read-only.",
        "srun(1); slurmd(8)",
        {
            "output": (
                r"Unable to create step",
                r"Task launch for StepId=\S+ failed on node",
                r"Invalid job credential",
                r"Application launch failed",
                r"Slurmd could not (set up environment|execve job|create|chdir)",
            ),
            "slurmd": (
                r"Could not launch job|_step_setup: .*failed|Failed to launch",
                r"uid \d+ not found on system|getpwuid.*failed",
                r"batch job launch failure|_rpc_batch_job.*failed",
            ),
            "slurmctld": (r"slurmd error running JobId=\d+",),
            "sacct": (r"Reason=(JobLaunchFailure|launch.failed)", r"State=BOOT_FAIL"),
        },
        "slurm",
        0.7,
        "operator",
        # A plugin of srun that fails, as Pyxis with an image, is told as a launch that failed.
        ("munge", "clock", "disk-full", "prolog", *_CONTAINERS),
    ),
    Rule(
        "kill-failed",
        "Processes of the job could not be ended: they hang in the kernel",
        "The node is drained (Kill task failed): ps -eo pid,state,wchan shows D; a file system or "
        "the GPU driver is what they hang in. Reboot it.",
        "slurm.conf(5), UnkillableStepTimeout",
        {
            "slurmd": (
                r"\*\*\* (JOB|STEP).*STEPD TERMINATED.*JOB NOT ENDING WITH SIGNALS",
                r"step not ending with signals",
            ),
            "output": (r"JOB NOT ENDING WITH SIGNALS",),
            "node": (r"Reason=Kill task failed",),
        },
        "exception",
        0.6,
        "operator",
    ),
    Rule(
        "program-missing",
        "The program that was to be started is not on the node",
        "Its path and PATH on the compute node; a module that is not loaded, an environment that "
        "is not activated, a #! line that names no program there.",
        "sh(1): exit 127; execve(2) ENOENT",
        {
            "output": (
                r"execve\(\): \S+: No such file or directory",
                r"error: .*: No such file or directory.*execve",
                r"(: |line \d+: )\S+: (command )?not found\s*$",
                r"bad interpreter: No such file",
                r"exec: .*: executable file not found",
                r"Exited with exit code 127",
                r"mpirun was unable to launch .* as it could not (access|find)",
            ),
            "sacct": (r"State=FAILED.* ExitCode=127:0",),
        },
        confidence=0.88,
        explained_by=("image-bad", "modules"),
        unless=(r"GLIBC", r"symbol"),
    ),
    Rule(
        "not-executable",
        "The program may not be executed",
        "chmod +x; a file system that is mounted noexec; a program of another processor's kind.",
        "sh(1): exit 126; execve(2) EACCES, ENOEXEC",
        {
            "output": (
                r"execve\(\): \S+: (Permission denied|Exec format error)",
                r"cannot execute binary file|Exec format error",
                r"line \d+: \S+: Permission denied\s*$",
                r"Exited with exit code 126",
            ),
            "sacct": (r"State=FAILED.* ExitCode=126:0",),
        },
        confidence=0.85,
    ),
    Rule(
        "modules",
        "A module that the script loads is not there",
        "module avail on the compute node; the tree of modules must be shared with it.",
        "Lmod, User Guide",
        {
            "output": (
                r"The following module\(s\) (are unknown|cannot be loaded)",
                r"ModuleCmd_Load.*Unable to locate a modulefile",
                r"module: command not found",
            )
        },
        confidence=0.85,
    ),
    Rule(
        "mpi-pmix",
        "MPI and Slurm do not agree on how ranks are started (PMIx, PMI)",
        "srun --mpi=list shows what Slurm has; MpiDefault=pmix or srun --mpi=pmix for Open MPI "
        "with PMIx; one version of PMIx in image and on the node.",
        "Slurm, MPI Guide; Open MPI, Launching with Slurm",
        {
            "output": (
                r"OMPI was not built with SLURM's PMI support",
                r"PMI2?_Init failed",
                r"PMIX? ERROR:|PMIX_\w*ERR",
                r"No PMIx server was reachable",
                r"mpi/pmix.*(error|failed)",
                r"Couldn't find mpi plugin|invalid MPI (type|plugin)",
                r"unable to (load|find).*pmix",
                r"OPAL ERROR: .*pmix",
            ),
            "slurmd": (r"mpi/pmix.*(error|failed|ERROR)",),
        },
        confidence=0.85,
        explained_by=("node-fail", "host-oom"),
        # What slurmstepd says of its own folder after any step.
        unless=(r"Failed to remove",),
    ),
    Rule(
        "mpi-slots",
        "mpirun was asked for more processes than there are slots",
        "--ntasks of the job is what Open MPI takes for slots: ask for as many as mpirun -n "
        "starts, or start them by srun.",
        "Open MPI, mpirun(1), --oversubscribe",
        {"output": (r"There are not enough slots available in the system",)},
        confidence=0.93,
    ),
    Rule(
        "mpi-interface",
        "Open MPI found no network of the name that it was given",
        "oob_tcp_if_include and btl_tcp_if_include (OMPI_MCA_…) have to name interfaces or "
        "networks that each node has (ip -br address).",
        "Open MPI, TCP BTL",
        {
            "output": (
                r"None of the TCP networks specified to be included",
                r"No network interfaces were found for out-of-band communications",
            )
        },
        confidence=0.92,
    ),
    Rule(
        "image-bad",
        "The container image is not there, or is none",
        "The path must begin with / or ./ to be a file, and be on the compute node; a registry's "
        "image as REGISTRY#IMAGE:TAG; try enroot import or apptainer inspect by hand.",
        _PYXIS + "; Apptainer, User Guide",
        _said_by_runtime(
            r"pyxis:.*failed to import docker image",
            r"pyxis:.*No such file or directory: \S+\.(sqsh|squashfs|sif)",
            r"pyxis:.*failed to create container filesystem",
            r"enroot.*\[ERROR\].*(No such file|Invalid image|not a squashfs|file already)",
            r"\[ERROR\] (No such file or directory|Invalid image)",
            r"Can't find a SQUASHFS superblock|unsquashfs.*(fatal|FATAL)",
            r"FATAL: +(Unable to handle|could not open image|image .* (not found|no such))",
            r"could not open image \S+",
            r"manifest unknown|returned error code: 404",
            r"(open|stat) \S+\.sif: no such file",
        ),
        confidence=0.85,
        explained_by=("image-denied", "container-folder", "disk-full", "no-network", "host-oom"),
    ),
    Rule(
        "image-denied",
        "The registry does not give the image: a name or a right is missing",
        "Credentials in ~/.config/enroot/.credentials (or apptainer registry login); without a "
        "registry in the name, Docker Hub is asked.",
        _PYXIS + ", credentials",
        _said_by_runtime(
            r"returned error code: 40[13]",
            r"(registry|docker|pull).*(unauthorized|authentication required|denied)",
            r"toomanyrequests|You have reached your pull rate limit|returned error code: 429",
        ),
        confidence=0.9,
    ),
    Rule(
        "container-folder",
        "The container runtime may not make its folders on the node",
        "ENROOT_RUNTIME_PATH, _CACHE_PATH and _DATA_PATH of enroot.conf must be folders that the "
        "user may write; slurmstack:enrootPyxis sets them.",
        "Enroot, enroot.conf",
        _said_by_runtime(
            r"(pyxis|enroot).*mkdir: cannot create directory",
            r"enroot.*(mkdir|mktemp).*(Permission denied|No such file)",
        ),
        confidence=0.92,
        owner="operator",
    ),
    Rule(
        "container-start",
        "The container did not start",
        "The lines of enroot before it say why: a hook (98-nvidia.sh: driver or devices of the "
        "node), an entrypoint (--no-container-entrypoint), a mount whose source is not there.",
        _PYXIS,
        _said_by_runtime(
            r"hooks\.d/\S+ exited with return code",
            r"enroot-switchroot: failed to execute",
            r"enroot-mount: failed to mount",
            r"nvidia-container-cli: (initialization|mount|device|ldcache|detection) error",
            r"pyxis:.*container start failed",
            r"pyxis:.*couldn't start container",
            r"FATAL: +container creation failed",
            r"failed to (create|set up) user namespace|clone.*user namespace",
        ),
        "exception",
        0.75,
        explained_by=("image-bad",),
    ),
    Rule(
        "first-task-exited",
        "srun ended the others after the first task was gone",
        "See which task ended first.",
        "srun(1), --wait and --kill-on-bad-exit",
        {
            "output": (
                r"First task exited \d+s ago",
                r"srun: Job step aborted",
                r"srun: Terminating StepId|Terminating job step",
                r"Failed to send MESSAGE_TASK_EXIT",
            )
        },
        "symptom",
        0.2,
    ),
)
