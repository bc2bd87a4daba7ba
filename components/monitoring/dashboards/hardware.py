"""GPUs by DCGM's exporter, and InfiniBand by node-exporter."""

from __future__ import annotations

from components.monitoring.dashboards.panels import NODE, Page, Panel, per_hour, per_second

#: Legends.
_GPU = "{{instance}} {{gpu}}"
_PORT = "{{instance}} {{device}}"


def _port(counter: str) -> str:
    return f"node_infiniband_{counter}_total"


GPUS = Page(
    "gpu",
    "Hardware",
    "GPUs",
    {
        "Work": (
            Panel(
                "At work",
                {_GPU: "DCGM_FI_DEV_GPU_UTIL{{N}} / 100"},
                "percentunit",
            ),
            Panel(
                "Multiprocessors and tensor cores, all of a node",
                {
                    "{{instance}} SM": "avg by (instance) (DCGM_FI_PROF_SM_ACTIVE{{N}})",
                    "{{instance}} tensor": "avg by (instance) "
                    "(DCGM_FI_PROF_PIPE_TENSOR_ACTIVE{{N}})",
                },
                "percentunit",
            ),
            Panel(
                "Memory in use",
                {
                    _GPU: "DCGM_FI_DEV_FB_USED{{N}}"
                    " / (DCGM_FI_DEV_FB_USED{{N}} + DCGM_FI_DEV_FB_FREE{{N}})"
                },
                "percentunit",
            ),
            Panel("Power", {_GPU: "DCGM_FI_DEV_POWER_USAGE{{N}}"}, "watt"),
        ),
        "Heat and clocks": (
            Panel(
                "Temperature",
                {_GPU: "DCGM_FI_DEV_GPU_TEMP{{N}}"},
                "celsius",
            ),
            Panel("Clock", {_GPU: "DCGM_FI_DEV_SM_CLOCK{{N}} * 1e6"}, "hertz"),
            Panel(
                "Slowed down",
                {
                    f"{_GPU} heat": per_second("DCGM_FI_DEV_THERMAL_VIOLATION"),
                    f"{_GPU} power": per_second("DCGM_FI_DEV_POWER_VIOLATION"),
                },
                description="As DCGM counts it: time held back since its start.",
            ),
        ),
        "Faults": (
            Panel(
                "Last XID",
                {"": "DCGM_FI_DEV_XID_ERRORS{{N}} > 0"},
                kind="table",
                description="The alert GpuXid says what each means.",
            ),
            Panel(
                "ECC errors, an hour",
                {
                    f"{_GPU} corrected": per_hour("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"),
                    f"{_GPU} not corrected": per_hour("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"),
                },
            ),
            Panel(
                "Rows",
                {
                    f"{_GPU} wait for a reset": "DCGM_FI_DEV_ROW_REMAP_PENDING{{N}}",
                    f"{_GPU} failed": "DCGM_FI_DEV_ROW_REMAP_FAILURE{{N}}",
                },
            ),
            Panel(
                "NVLink recoveries, an hour",
                {_GPU: per_hour("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL")},
            ),
        ),
        "Ways to and from": (
            Panel(
                "PCIe",
                {
                    "{{instance}} in": "sum by (instance) (DCGM_FI_PROF_PCIE_RX_BYTES{{N}})",
                    "{{instance}} out": "sum by (instance) (DCGM_FI_PROF_PCIE_TX_BYTES{{N}})",
                },
                "Bps",
            ),
            Panel(
                "NVLink",
                {
                    "{{instance}} in": "sum by (instance) (DCGM_FI_PROF_NVLINK_RX_BYTES{{N}})",
                    "{{instance}} out": "sum by (instance) (DCGM_FI_PROF_NVLINK_TX_BYTES{{N}})",
                },
                "Bps",
            ),
        ),
    },
    {"node": NODE},
)

FABRIC = Page(
    "fabric",
    "Hardware",
    "Fabric",
    {
        "Ports": (
            Panel(
                "Ports that are active",
                {"ports": "count(node_infiniband_state_id{{N}} == 4)"},
                kind="stat",
            ),
            Panel("Ports", {"ports": "count(node_infiniband_state_id{{N}})"}, kind="stat"),
            Panel(
                "Rate of each",
                {_PORT: "node_infiniband_rate_bytes_per_second{{N}}"},
                "Bps",
            ),
        ),
        "Traffic": (
            Panel(
                "In",
                {_PORT: per_second("node_infiniband_port_data_received_bytes_total")},
                "Bps",
            ),
            Panel(
                "Out",
                {_PORT: per_second("node_infiniband_port_data_transmitted_bytes_total")},
                "Bps",
            ),
            Panel(
                "Packets that had to wait",
                {_PORT: per_second(_port("port_transmit_wait"))},
                description="Congestion: of a rail, when all of its ports have it.",
            ),
        ),
        "Faults, an hour": (
            Panel(
                "Links that went down",
                {_PORT: per_hour(_port("link_downed"))},
            ),
            Panel(
                "Symbol errors and recoveries",
                {
                    f"{_PORT} symbols": per_hour("node_infiniband_symbol_error_total"),
                    f"{_PORT} recoveries": per_hour("node_infiniband_link_error_recovery_total"),
                },
            ),
            Panel(
                "Packets that were lost",
                {
                    f"{_PORT} discarded": per_hour(
                        "node_infiniband_port_discards_transmitted_total"
                    ),
                    f"{_PORT} with errors": per_hour("node_infiniband_port_errors_received_total"),
                },
            ),
        ),
    },
    {"node": NODE},
)
