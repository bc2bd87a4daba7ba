"""GPUs: XIDs of the kernel, and what CUDA says of its devices."""

from __future__ import annotations

from on_node.diagnosis.rule import Rule

_XIDS = "NVIDIA, XID Errors (docs.nvidia.com/deploy/xid-errors)"
_CUDA = "NVIDIA, CUDA Runtime API, cudaError_t"
_PYTORCH = "PyTorch, CUDA semantics"
_TURN_OUT = (
    "Keep jobs from the node (slurmstack node drain NODE --reason 'XID'), reset the GPU "
    "(nvidia-smi --gpu-reset) or reboot; if it comes again, have the GPU replaced."
)


def _xid(
    number: str,
    says: str,
    remedy: str,
    confidence: float = 0.9,
    owner: str = "hardware",
    level: str = "machine",
) -> Rule:
    name = number.partition("|")[0]
    return Rule(
        f"xid-{name}",
        f"XID {number.replace('|', ' or ')}: {says}",
        remedy,
        _XIDS,
        {"kernel": (rf"NVRM: Xid \(PCI:[^)]*\): (?:{number}),",)},
        level,
        confidence,
        owner,
    )


_PROGRAM_ERROR = (
    "A program's own error in most cases: run it with CUDA_LAUNCH_BLOCKING=1 or under "
    "compute-sanitizer. Where other programs have it on this GPU too, run dcgmi diag -r 3 there."
)

GPU: tuple[Rule, ...] = (
    _xid(
        "13",
        "the GPU met an exception in a kernel of the program (bad address or instruction)",
        _PROGRAM_ERROR,
        0.7,
        "user",
        "cause",
    ),
    _xid(
        "31",
        "a kernel of the program touched memory that is not its own (MMU fault)",
        _PROGRAM_ERROR,
        0.75,
        "user",
        "cause",
    ),
    _xid(
        "43",
        "the GPU stopped a program after its fault; the GPU is well",
        _PROGRAM_ERROR,
        0.5,
        "user",
        "exception",
    ),
    _xid(
        "45",
        "the driver cleaned up after another error",
        "Look for what was before it.",
        0.2,
        "user",
        "symptom",
    ),
    _xid("48", "a double-bit ECC error in GPU memory", _TURN_OUT),
    _xid("61|62", "the GPU's microcontroller halted", _TURN_OUT),
    _xid(
        "63",
        "a bad page or row of GPU memory was recorded to be replaced",
        "Reset the GPU or reboot the node when its jobs are done: the row is remapped then. "
        "Alone it ends no job; look at what else is here.",
        0.6,
        "hardware",
        "cause",
    ),
    _xid("64", "a bad row of GPU memory could not be recorded or remapped", _TURN_OUT),
    _xid(
        "74",
        "an NVLink error between GPUs or to a switch",
        "Drain the node; look at nvidia-smi nvlink --status and -e, the fabric manager's log, and "
        "the bridges' seat; reset all GPUs of the node.",
    ),
    _xid(
        "79",
        "a GPU fell off the PCIe bus",
        "Drain the node and power-cycle it; look at power, temperature and PCIe errors (AER) in "
        "its log; if it comes again, have GPU or board replaced.",
        0.97,
    ),
    _xid("92", "many single-bit ECC errors in GPU memory", _TURN_OUT, 0.7),
    _xid(
        "94",
        "an uncorrectable ECC error, contained to this program",
        "Start the job again: only it was hurt. Reset the GPU when the node is idle, so that the "
        "row is remapped.",
        0.92,
    ),
    _xid(
        "95",
        "an uncorrectable ECC error that was not contained: all programs on the GPU end",
        _TURN_OUT,
        0.95,
    ),
    _xid("109", "a context switch on the GPU timed out", _PROGRAM_ERROR, 0.6, "user", "cause"),
    _xid(
        "119|120",
        "the GPU's system processor (GSP) did not answer",
        "Drain the node and power-cycle it, a reset does not always help; bring the driver to a "
        "version that its release notes name for it.",
        0.93,
    ),
    Rule(
        "gpu-lost",
        "A GPU is gone or does not answer",
        "Drain the node and power-cycle it; look for XID 79 or 119 in the kernel log.",
        "NVIDIA, nvidia-smi(1) and NVML return codes",
        {
            "output": (
                r"GPU is lost",
                r"Unable to determine the device handle for GPU",
                r"NVML_ERROR_GPU_IS_LOST",
                r"fallen off the bus",
                r"CUDA error: unknown error",
                r"Cuda failure 999",
            ),
            "kernel": (r"NVRM:.*fallen off the bus", r"NVRM:.*rm_init_adapter failed"),
            "node": (r"GpuMissing=", r"Health=gpu-devices:|Health=gpus: .*GPUs answer, expected"),
        },
        "machine",
        0.85,
        "hardware",
        ("xid-79", "xid-119"),
    ),
    Rule(
        "gpu-ecc",
        "The memory of a GPU has an error that ECC cannot correct",
        _TURN_OUT,
        _CUDA + " cudaErrorECCUncorrectable",
        {
            "output": (r"uncorrectable ECC error", r"CUDA_ERROR_ECC_UNCORRECTABLE"),
            "node": (
                r"EccUncorrected=",
                r"Health=gpus: .*(uncorrected ECC|pages to retire|rows? to remap|not remap)",
            ),
        },
        "machine",
        0.93,
        "hardware",
        ("xid-48", "xid-94", "xid-95", "xid-64"),
    ),
    Rule(
        "gpu-nvlink",
        "CUDA met an NVLink error",
        "Drain the node; nvidia-smi nvlink --status; look for XID 74 in the kernel log.",
        _CUDA + " cudaErrorNvlinkUncorrectable",
        {
            "output": (r"uncorrectable NVLink error", r"CUDA_ERROR_NVLINK_UNCORRECTABLE"),
            "node": (r"Health=nvlink:",),
        },
        "machine",
        0.9,
        "hardware",
        ("xid-74",),
    ),
    Rule(
        "fabric-manager",
        "The fabric manager of the NVSwitches does not run, or has another version than the driver",
        "systemctl status nvidia-fabricmanager on the node; install the version of the driver and "
        "start it.",
        _CUDA + " cudaErrorSystemNotReady; NVIDIA Fabric Manager User Guide",
        {
            "output": (
                r"system not yet initialized",
                r"CUDA_ERROR_SYSTEM_NOT_READY",
                r"CUDA.*error 802\b|Error 802:",
            ),
            "node": (r"Health=fabric-manager:",),
        },
        "machine",
        0.9,
        "operator",
    ),
    Rule(
        "driver-mismatch",
        "The driver in the kernel and its libraries have different versions",
        "Drain the node and reboot it: the driver was updated below a running kernel module. In a "
        "container, let the container runtime bring the host's libraries.",
        "NVIDIA, NVML: NVML_ERROR_LIB_RM_VERSION_MISMATCH",
        {
            "output": (
                r"Driver/library version mismatch",
                r"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
                r"system has unsupported display driver / cuda driver combination",
            ),
            "kernel": (r"NVRM: API mismatch",),
            "node": (r"DriverMismatch=|Health=gpu-versions:",),
        },
        "machine",
        0.95,
        "operator",
    ),
    Rule(
        "driver-too-old",
        "The driver is older than the program's CUDA needs",
        "Use an image or wheel built for an older CUDA, or have the driver updated.",
        _CUDA + " cudaErrorInsufficientDriver; CUDA Compatibility",
        {
            "output": (
                r"CUDA driver version is insufficient for CUDA runtime version",
                r"The NVIDIA driver on your system is too old",
                r"forward compatibility was attempted on non supported HW",
            )
        },
        confidence=0.95,
    ),
    Rule(
        "gpu-arch",
        "The program was not built for this kind of GPU",
        "Use a build of PyTorch (or of the extension) whose architectures have this GPU: "
        "torch.cuda.get_arch_list(); for own kernels TORCH_CUDA_ARCH_LIST.",
        _CUDA + " cudaErrorNoKernelImageForDevice",
        {
            "output": (
                r"no kernel image is available for execution",
                r"is not compatible with the current PyTorch installation",
                r"CUDA_ERROR_NO_BINARY_FOR_GPU",
            )
        },
        confidence=0.93,
    ),
    Rule(
        "gpu-none",
        "The program sees no GPU",
        "Ask for one (--gres=gpu:N or --gpus-per-node=N) in the step, too; see that "
        "CUDA_VISIBLE_DEVICES is not set by the script, and that the container has the devices.",
        _CUDA + " cudaErrorNoDevice; gres.conf(5)",
        {
            "output": (
                r"no CUDA-capable device is detected",
                r"No CUDA GPUs are available",
                r"Found no NVIDIA driver on your system",
                r"NVIDIA-SMI has failed because it couldn't communicate",
                r"Failed to initialize NVML: (GPU access blocked|Insufficient Perm|Unknown Error)",
                r"Failed to initialize NVML: Driver Not Loaded|CUDA_ERROR_NO_DEVICE",
                r"No visible GPU devices|Unable to initialize backend 'cuda'",
                r"CUDA error: invalid device ordinal",
                r"Torch not compiled with CUDA enabled",
                r"but torch\.cuda\.is_available\(\) is False",
            )
        },
        confidence=0.85,
    ),
    Rule(
        "gpu-oom",
        "GPU memory ran out",
        "A smaller batch, sequence or model share per GPU; activation checkpointing; "
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True against fragmentation. Where memory was "
        "taken before the job began, a process was left on the GPU: have the node drained.",
        _PYTORCH + ", memory management",
        {
            "output": (
                r"CUDA out of memory",
                r"OutOfMemoryError: CUDA",
                r"OutOfMemoryError: Out of memory allocating",
                r"CUDA error: out of memory",
                r"CUDA_ERROR_OUT_OF_MEMORY",
                r"Cuda failure.*out of memory",
                r"CUBLAS_STATUS_ALLOC_FAILED",
                r"HIP out of memory",
                r"RESOURCE_EXHAUSTED: Out of memory while trying to allocate",
            )
        },
        confidence=0.95,
        unless=(r"more than 1EB memory",),
    ),
    Rule(
        "gpu-busy",
        "The GPU is taken by another process",
        "Have the node drained and what was left on the GPU ended (nvidia-smi "
        "--query-compute-apps=pid); compute mode EXCLUSIVE_PROCESS lets one process in only.",
        _CUDA + " cudaErrorDevicesUnavailable",
        {
            "output": (r"CUDA-capable device\(s\) is/are busy or unavailable",),
            "node": (r"Health=gpu-memory:",),
        },
        confidence=0.85,
        owner="operator",
    ),
    Rule(
        "illegal-memory",
        "A kernel of the program touched GPU memory that is not its own",
        _PROGRAM_ERROR,
        _CUDA + " cudaErrorIllegalAddress",
        {
            "output": (
                r"illegal memory access was encountered",
                r"CUDA_ERROR_ILLEGAL_ADDRESS",
                r"unspecified launch failure",
                r"CUDA error: misaligned address",
                r"operation not supported on global/shared address space",
                r"cudaError(IllegalAddress|MisalignedAddress|InvalidAddressSpace|InvalidPc)\b",
                r"an illegal instruction was encountered",
            )
        },
        confidence=0.8,
        explained_by=("xid-13", "xid-31"),
    ),
    Rule(
        "device-assert",
        "The program's data broke an assertion on the GPU (an index out of range, most often)",
        "Look for the line `Assertion … failed` before it; labels, token ids and vocabulary size "
        "must fit. On the CPU the same code names the place.",
        _CUDA + " cudaErrorAssert",
        {"output": (r"device-side assert triggered", r"\.cu:\d+:.*Assertion .* failed")},
        confidence=0.93,
    ),
    Rule(
        "cudnn",
        "cuDNN or cuBLAS failed",
        "Out of memory or mixed versions of CUDA libraries, most often: python -m "
        "torch.utils.collect_env; LD_LIBRARY_PATH must not bring another CUDA.",
        "NVIDIA, cuDNN and cuBLAS status codes",
        {
            "output": (
                r"CUDNN_STATUS_(?!SUCCESS)\w+",
                r"CUBLAS_STATUS_(NOT_INITIALIZED|EXECUTION_FAILED|INTERNAL_ERROR|NOT_SUPPORTED)",
            )
        },
        confidence=0.6,
        explained_by=("gpu-oom", "illegal-memory", "device-assert"),
    ),
)
