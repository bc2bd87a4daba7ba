"""Nodes as hosts and as Slurm has them, and jobs by the GPUs that they hold."""

from __future__ import annotations

from components.monitoring.dashboards.panels import NODE, Page, Panel, per_second

_WIRES = '{N},device!="lo"'
_JOBS_THERE = "label_values(DCGM_FI_DEV_GPU_UTIL{{C}}, hpc_job)"

HOSTS = Page(
    "node",
    "Slurm",
    "Nodes",
    {
        "Host": (
            Panel("Answers", {"{{instance}}": 'up{job="node",{N}}'}),
            Panel(
                "Processors at work",
                {
                    "{{instance}}": "1 - avg by (instance) "
                    '(rate(node_cpu_seconds_total{{N},mode="idle"}[5m]))'
                },
                "percentunit",
            ),
            Panel(
                "Load for each processor",
                {
                    "{{instance}}": "node_load1{{N}} / on (cluster, instance) "
                    'count by (cluster, instance) (node_cpu_seconds_total{{N},mode="idle"})'
                },
            ),
            Panel(
                "Memory in use",
                {
                    "{{instance}}": "1 - node_memory_MemAvailable_bytes{{N}}"
                    " / node_memory_MemTotal_bytes{{N}}"
                },
                "percentunit",
            ),
            Panel(
                "Disk in use",
                {
                    "{{instance}} {{mountpoint}}": "1 - node_filesystem_avail_bytes{{N}}"
                    " / node_filesystem_size_bytes{{N}}"
                },
                "percentunit",
            ),
            Panel(
                "Network",
                {
                    "{{instance}} {{device}} in": per_second(
                        "node_network_receive_bytes_total", '{N},device!="lo"'
                    ),
                    "{{instance}} {{device}} out": per_second(
                        "node_network_transmit_bytes_total", '{N},device!="lo"'
                    ),
                },
                "Bps",
            ),
            Panel(
                "The clock is off by",
                {"{{instance}}": "abs(node_time_seconds{{N}} - timestamp(node_time_seconds{{N}}))"},
                "s",
                description="With the delay of the look itself.",
            ),
        ),
        "Slurm": (
            Panel(
                "States",
                {"{{node}} {{state}}": 'slurm_node_state{{C},node=~"$node"}'},
                stacked=True,
            ),
            Panel(
                "Its GPUs",
                {"{{node}} {{type}} {{state}}": 'slurm_node_gpus{{C},node=~"$node"}'},
                stacked=True,
            ),
            Panel(
                "Jobs that failed there, an hour",
                {"{{node}} {{state}}": 'increase(slurm_jobs_failed_total{{C},node=~"$node"}[1h])'},
            ),
            Panel(
                "Daemons that do not run",
                {"": 'node_systemd_unit_state{{N},state="active"} == 0'},
                kind="table",
            ),
        ),
    },
    {"node": NODE},
)

JOBS = Page(
    "job",
    "Slurm",
    "Jobs on GPUs",
    {
        "Jobs that were chosen": (
            Panel(
                "GPUs of each job",
                {"{{hpc_job}}": "count by (hpc_job) (DCGM_FI_DEV_GPU_UTIL{{J}})"},
                stacked=True,
            ),
            Panel(
                "GPUs at work",
                {"{{hpc_job}}": "avg by (hpc_job) (DCGM_FI_DEV_GPU_UTIL{{J}}) / 100"},
                "percentunit",
                description="Near nothing for long: the job hangs, or waits for data.",
            ),
            Panel(
                "Its slowest GPU",
                {"{{hpc_job}}": "min by (hpc_job) (DCGM_FI_DEV_GPU_UTIL{{J}}) / 100"},
                "percentunit",
                description="One that waits keeps all others of the job waiting.",
            ),
            Panel(
                "Tensor cores at work",
                {"{{hpc_job}}": "avg by (hpc_job) (DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{J}})"},
                "percentunit",
            ),
            Panel(
                "GPU memory",
                {"{{hpc_job}}": "sum by (hpc_job) (DCGM_FI_DEV_FB_USED{{J}}) * 1024 * 1024"},
                "bytes",
            ),
            Panel(
                "Power",
                {"{{hpc_job}}": "sum by (hpc_job) (DCGM_FI_DEV_POWER_USAGE{{J}})"},
                "watt",
            ),
            Panel(
                "Over NVLink",
                {"{{hpc_job}}": "sum by (hpc_job) (DCGM_FI_PROF_NVLINK_TX_BYTES{{J}})"},
                "Bps",
            ),
        ),
    },
    {"job": _JOBS_THERE},
)
