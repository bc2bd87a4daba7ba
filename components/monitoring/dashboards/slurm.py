"""Cluster, and its queue with slurmctld's own figures."""

from __future__ import annotations

from components.monitoring.dashboards.panels import Page, Panel, per_second

CLUSTER = Page(
    "cluster",
    "Slurm",
    "Cluster",
    {
        "Now": (
            Panel("slurmctld answers", {"answers": "slurm_up{{C}}"}, kind="stat"),
            Panel(
                "Nodes", {"nodes": "count(count by (node) (slurm_node_state{{C}}))"}, kind="stat"
            ),
            Panel(
                "GPUs in use",
                {"in use": 'sum(slurm_gpus{{C},state="allocated"}) / (sum(slurm_gpus{{C}}) > 0)'},
                "percentunit",
                "stat",
            ),
            Panel("Jobs running", {"jobs": 'sum(slurm_jobs{{C},state="RUNNING"})'}, kind="stat"),
            Panel("Jobs waiting", {"jobs": 'sum(slurm_jobs{{C},state="PENDING"})'}, kind="stat"),
            Panel(
                "Alerts",
                {"firing": 'count(ALERTS{{C},alertstate="firing"}) or vector(0)'},
                kind="stat",
            ),
        ),
        "Over time": (
            Panel(
                "Nodes by state",
                {"{{state}}": "slurm_nodes{{C}}"},
                description=("A node in several states counts in each."),
            ),
            Panel("GPUs", {"{{state}}": "sum by (state) (slurm_gpus{{C}})"}, stacked=True),
            Panel("CPUs", {"{{state}}": "slurm_cpus{{C}}"}, stacked=True),
            Panel("Jobs", {"{{state}}": "sum by (state) (slurm_jobs{{C}})"}, stacked=True),
        ),
        "What asks for somebody": (
            Panel(
                "Alerts that fire",
                {"": 'ALERTS{{C},alertstate="firing"}'},
                kind="table",
            ),
            Panel(
                "Drained, by whom and for how long",
                {"": "time() - slurm_node_drain_timestamp_seconds{{C}}"},
                "s",
                "table",
            ),
        ),
    },
)

QUEUE = Page(
    "queue",
    "Slurm",
    "Queue and scheduler",
    {
        "Queue": (
            Panel(
                "Jobs by partition and state",
                {"{{partition}} {{state}}": "slurm_jobs{{C}}"},
                stacked=True,
            ),
            Panel(
                "Why jobs wait",
                {"{{reason}}": "sum by (reason) (slurm_jobs_pending{{C}})"},
                stacked=True,
            ),
            Panel(
                "How long jobs have waited that wait now",
                {
                    "{{partition}}, longest": "slurm_queue_wait_max_seconds{{C}}",
                    "{{partition}}, half of them": "slurm_queue_wait_median_seconds{{C}}",
                },
                "s",
            ),
            Panel(
                "From submission to start, nine of ten",
                {
                    "{{partition}}": "histogram_quantile(0.9, sum by (partition, le) "
                    "(increase(slurm_job_wait_seconds_bucket{{C}}[6h])))"
                },
                "s",
            ),
            Panel(
                "Jobs an hour, by what became of them",
                {"{{what}}": "rate(slurm_jobs_since{{C}}[1h]) * 3600"},
            ),
            Panel(
                "Shares that were used",
                {"{{account}} {{user}}": "slurm_share_usage{{C}}"},
                "percentunit",
            ),
            Panel("Fair-share factor", {"{{account}} {{user}}": "slurm_fairshare{{C}}"}),
            Panel("Licences", {"{{license}} {{state}}": "slurm_licenses{{C}}"}),
            Panel(
                "Reservations",
                {"": "slurm_reservation_nodes{{C}}"},
                kind="table",
                description="Nodes of each.",
            ),
            Panel(
                "A reservation ends in",
                {"": "slurm_reservation_end_timestamp_seconds{{C}} - time()"},
                "s",
                "table",
            ),
        ),
        "slurmctld": (
            Panel(
                "Cycles of the schedulers",
                {
                    "main, last": "slurm_scheduler_last_cycle_seconds{{C}}",
                    "main, mean": "slurm_scheduler_mean_cycle_seconds{{C}}",
                    "backfill, last": "slurm_backfill_last_cycle_seconds{{C}}",
                    "backfill, mean": "slurm_backfill_mean_cycle_seconds{{C}}",
                },
                "s",
            ),
            Panel(
                "Depth",
                {
                    "main": "slurm_scheduler_queue_length{{C}}",
                    "backfill": "slurm_backfill_last_depth{{C}}",
                },
            ),
            Panel(
                "Jobs that backfill has started an hour",
                {"jobs": "rate(slurm_backfill_jobs{{C}}[1h]) * 3600"},
            ),
            Panel(
                "Queues of slurmctld",
                {
                    "threads": "slurm_server_threads{{C}}",
                    "to nodes": "slurm_agent_queue_length{{C}}",
                    "to slurmdbd": "slurm_dbd_queue_length{{C}}",
                },
            ),
            Panel("RPCs a second", {"{{type}}": per_second("slurm_rpcs", "{C}")}),
            Panel(
                "Time of slurmctld for RPCs",
                {"{{type}}": per_second("slurm_rpc_seconds", "{C}")},
                "percentunit",
            ),
            Panel("What a look at slurmctld takes", {"look": "slurm_exporter_seconds{{C}}"}, "s"),
        ),
    },
)
