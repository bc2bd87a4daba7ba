"""What is the program's own: its code, its data, its environment."""

from __future__ import annotations

from on_node.diagnosis.rule import Rule

_PYTHON = "Python, Built-in Exceptions"
_SIGNALS = "signal(7)"

#: Exceptions that tell of something else than the line of Python they were raised in.
_TOLD_ELSEWHERE = (
    r"DistBackendError|DistStoreError|DistNetworkError|ChildFailedError|SignalException",
    r"NCCL error|ncclSystemError|ncclInternalError|CUBLAS|CUDNN|cuDNN",
    r"CUDA (error|out of memory|GPUs|driver)|\bCUDA_\w+|Cuda failure|cudaGet|: CUDA",
    r"not .*with CUDA",
    r"SystemExit|KeyboardInterrupt|CalledProcessError|ProcessExitedException|ProcessRaisedException",
    r"Rendezvous\w*Error|BrokenPipeError|ConnectionResetError",
    r"frame #\d+|c10::Error::Error",
)

PROGRAM: tuple[Rule, ...] = (
    Rule(
        "nan-loss",
        "The loss became NaN or infinite: the training itself, not the cluster",
        "Not the cluster's: learning rate, gradient clipping, bf16 for fp16, the data of that "
        "step. If the same step is well on another node, suspect the GPU (dcgmi diag -r 3).",
        "PyTorch, Automatic Mixed Precision, Troubleshooting",
        {
            "output": (
                r"loss (became|becomes|is|was) (infinite or )?(nan|inf)",
                r"loss is nan, stopping",
                r"FloatingPointError: Loss became",
                r"Non-finite loss|loss.*(not|isn't) finite|nan (loss )?detected",
                r"(found|detected) (NaN|inf)s? in (local |the )?(grad|loss)",
                r"Function '\w+' returned nan values",
                r"Current loss scale already at minimum",
            )
        },
        confidence=0.9,
    ),
    Rule(
        "python-import",
        "A Python module is not in the environment of the job",
        "Activate the environment in the script itself; the same one for all nodes; pip list in "
        "the container.",
        _PYTHON + ": ImportError",
        {
            "output": (
                r"ModuleNotFoundError: ",
                r"ImportError: (?!.*undefined symbol)",
            )
        },
        confidence=0.93,
        unless=(r"lib\w+\.so", r"GLIBC"),
    ),
    Rule(
        "library",
        "A shared library is not there, or of another version",
        "ldd on the file, on the compute node; LD_LIBRARY_PATH and modules of the job; an image "
        "built on a newer distribution than it runs on.",
        "ld.so(8)",
        {
            "output": (
                r"error while loading shared libraries",
                r"cannot open shared object file",
                r"version `(GLIBC|GLIBCXX|CXXABI)_[\d.]+' not found",
                r"undefined symbol: (?!nccl)",
                r"symbol lookup error",
            )
        },
        confidence=0.9,
    ),
    Rule(
        "file-missing",
        "A file that the program reads is not there",
        "The named path, on the compute node: data or a mount that only the login node has, a "
        "folder of --chdir, a checkpoint that another rank was still writing.",
        _PYTHON + ": FileNotFoundError",
        {
            "output": (
                r"FileNotFoundError: ",
                r"can't open file '.*': \[Errno 2\]",
                r"error: couldn't chdir to",
                r"Unable to open (file|dataset).*No such file",
            ),
            "slurmd": (r"Could not open (stdout|stderr) file.*No such file",),
        },
        confidence=0.88,
    ),
    Rule(
        "checkpoint",
        "A checkpoint cannot be read: it is cut off or of another model",
        "Take the one before; write to a temporary name and rename, so that a job that is ended "
        "leaves none in half; strict=False where the model changed on purpose.",
        "PyTorch, Saving and Loading Models",
        {
            "output": (
                r"PytorchStreamReader failed",
                r"storage has wrong size: expected",
                r"unexpected EOF, expected \d+ more bytes",
                r"Error\(s\) in loading state_dict",
                r"SafetensorError|safetensors.*(corrupt|invalid|incomplete)",
                r"EOFError: Ran out of input",
                r"UnpicklingError|invalid load key",
            )
        },
        confidence=0.9,
    ),
    Rule(
        "no-network",
        "The program fetches something from outside, which nodes cannot reach",
        "Fetch it on a login node first; HF_HOME on shared storage and HF_HUB_OFFLINE=1; a proxy.",
        "Hugging Face Hub, Offline mode",
        {
            "output": (
                r"couldn't connect to '?https?://",
                r"Max retries exceeded with url",
                r"urlopen error",
                r"Failed to resolve '.*\.(co|com|org|io)'",
                r"LocalEntryNotFoundError",
                r"Could not resolve host",
                r"requests\.exceptions\.(ConnectionError|ConnectTimeout)",
                r"thrown while requesting (HEAD|GET) https?://",
            )
        },
        confidence=0.88,
    ),
    Rule(
        "ddp-unused",
        "Parameters took no part in the loss, so that DistributedDataParallel waits for them",
        "find_unused_parameters=True, or let each output be part of the loss on each rank.",
        "PyTorch, DistributedDataParallel",
        {
            "output": (
                r"parameters that were not used in producing (the )?loss",
                r"Expected to have finished reduction in the prior iteration",
                r"marked a variable ready (twice|only once)",
            )
        },
        confidence=0.9,
        explained_by=(),
    ),
    Rule(
        "arguments",
        "The program does not know its arguments",
        "The command line in the script against the program's --help.",
        "Python, argparse: exit code 2",
        {
            "output": (
                r"error: (unrecognized arguments|the following arguments are required)",
                r"error: argument \S+: (invalid|expected)",
                r"(sbatch|srun): (error|unrecognized option)",
            )
        },
        confidence=0.9,
        unless=(r"srun: error: (Node|\S+: tasks?|Unable|Job|spank|Task|Timed|PMI|mpi)",),
    ),
    Rule(
        "segfault",
        "A program crashed on a bad memory address (SIGSEGV) or aborted in native code",
        "PYTHONFAULTHANDLER=1 shows the Python stack; mixed versions of native libraries are the "
        "usual reason.",
        _SIGNALS,
        {
            "output": (
                r"Segmentation fault",
                r"Signal 11 \(SIGSEGV\)",
                r"exitcode ?: -11\b",
                r"Caught signal 11",
                r"double free or corruption|malloc\(\): |free\(\): invalid",
                r"DataLoader worker .* killed by signal: Segmentation fault",
            ),
            "kernel": (r"\w+\[\d+\]: segfault at", r"traps: \S+ general protection"),
            "sacct": (r"ExitCode=\d+:11\b",),
        },
        "exception",
        0.75,
    ),
    Rule(
        "bus-error",
        "A program wrote to memory that could not be had (SIGBUS): /dev/shm is full, most often",
        "df -h /dev/shm while it runs, in the container; NCCL and DataLoader workers share memory "
        "there. A mapped file that was cut, or that its file system cannot read, does it, too.",
        _SIGNALS + ": SIGBUS; shm_overview(7)",
        {
            "output": (
                r"exitcode ?: -7\b",
                r"Signal 7 \(SIGBUS\)",
                r"(tasks? \S+: |^)Bus error",
                r"Caught signal 7",
                r"nonexistent physical address",
            ),
            "sacct": (r"ExitCode=\d+:7\b",),
        },
        "exception",
        0.7,
    ),
    Rule(
        "python-exception",
        "The program ended with a Python exception of its own",
        "The line names it; the rank's traceback above shows the place.",
        _PYTHON,
        {
            "output": (
                r"(?-i:^(\S+[\]:)]\s+)*([A-Za-z_]\w*\.)*([A-Z]\w*)?"
                r"(Error|Exception|Exit|StopIteration)(: |\s*$))",
            )
        },
        "exception",
        0.7,
        unless=_TOLD_ELSEWHERE,
        last=True,
    ),
    Rule(
        "hangup",
        "The launcher was told to end by a hangup: the terminal it ran in was closed",
        "Submit it (sbatch) instead of starting it in a login shell; nohup or tmux otherwise.",
        _SIGNALS + ": SIGHUP",
        {
            "output": (
                r"Received 1 death signal",
                r"closing signal SIGHUP",
                r"got signal: 1\b",
            )
        },
        confidence=0.85,
        explained_by=("walltime", "preempted", "cancelled"),
    ),
    Rule(
        "killed",
        "A process was ended by SIGKILL, and nothing here says by whom",
        "Most often host memory: see the kernel's log of that node and MaxRSS, ask for more --mem. "
        "Otherwise a person, a watchdog, or Slurm after KillWait.",
        _SIGNALS + ": SIGKILL",
        {
            "output": (
                r"Signal 9 \(SIGKILL\)",
                r"exitcode ?: -9\b",
                r"is killed by signal: Killed",
                r"died with <Signals\.SIGKILL",
                r"exits with return code = -9\b|terminated with code -9\b",
                r"^(\S+: line \d+: +\d+ )?Killed\b",
                r"srun: error: \S+: tasks? \S+: Killed",
                r"process rank \d+ .*exited on signal 9\b",
                r"A worker process managed by the executor was unexpectedly terminated",
            ),
            "slurmctld": (r"_job_complete: JobId=\d+ WTERMSIG 9",),
            "sacct": (r"ExitCode=\d+:9\b",),
        },
        "exception",
        0.5,
    ),
    Rule(
        "mpi-abort",
        "A rank told MPI to end all",
        "Look at what that rank said before.",
        "MPI_Abort(3)",
        {"output": (r"MPI_ABORT was invoked", r"MPI_ERRORS_ARE_FATAL")},
        "symptom",
        0.3,
    ),
    Rule(
        "terminated",
        "A process was told to end because others had ended, or by Slurm",
        "Look at what ended first.",
        _SIGNALS + ": SIGTERM",
        {
            "output": (
                r"closing signal SIGTERM",
                r"Received 15 death signal",
                r"Signal 15 \(SIGTERM\)",
                r"tasks? \S+: Terminated",
                r"exitcode ?: -6\b|Signal 6 \(SIGABRT\)",
            ),
            "slurmctld": (r"_job_complete: JobId=\d+ WTERMSIG 15",),
        },
        "symptom",
        0.2,
    ),
    Rule(
        "exit-code",
        "The program ended with an exit code other than 0, and said no more",
        "Run it with its output in view: srun --label; set -x in the script.",
        "sacct(1), ExitCode",
        {
            "output": (
                r"srun: error: \S+: tasks? \S+: Exited with exit code (?!126|127)\d+",
                r"ChildFailedError",
                r"exited with (non-zero )?(exit )?(status|code) [1-9]",
                r"mpirun detected that one or more processes exited with non-zero status",
            ),
            "slurmctld": (r"_job_complete: JobId=\d+ WEXITSTATUS [1-9]",),
            "sacct": (r"State=FAILED.* ExitCode=(?!0:0|126:|127:)\d+:0",),
        },
        "symptom",
        0.3,
    ),
)
