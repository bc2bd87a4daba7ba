"""What slurmstack itself keeps, and Prometheus."""

from __future__ import annotations

from components.monitoring.dashboards.panels import Page, Panel, per_hour

PRODUCT = Page(
    "slurmstack",
    "slurmstack",
    "slurmstack itself",
    {
        "What is due": (
            Panel(
                "Certificates expire in",
                {
                    "{{instance}} {{path}}": "slurmstack_certificate_expires_timestamp_seconds{{C}}"
                    " - time()"
                },
                "s",
            ),
            Panel(
                "Keys are due in",
                {"{{instance}} {{key}}": "slurmstack_key_due_timestamp_seconds{{C}} - time()"},
                "s",
            ),
            Panel(
                "Keys were changed ago",
                {"{{instance}} {{key}}": "time() - slurmstack_key_changed_timestamp_seconds{{C}}"},
                "s",
            ),
            Panel(
                "Age of the newest dump",
                {"{{instance}}": "time() - slurmstack_dump_timestamp_seconds{{C}}"},
                "s",
            ),
        ),
        "What is where": (
            Panel(
                "Hosts by slurm.conf",
                {"{{sha256}}": "count by (sha256) (slurmstack_configuration_info{{C}})"},
                stacked=True,
                description="More than one colour for long: a host did not take up a change.",
            ),
            Panel(
                "Drift, by host",
                {"{{instance}}": "sum by (instance) (slurmstack_drift_differences{{C}})"},
            ),
            Panel(
                "Last looked for drift ago",
                {"{{instance}}": "time() - slurmstack_drift_last_check_timestamp_seconds{{C}}"},
                "s",
            ),
            Panel(
                "Last applied to ago",
                {
                    "{{instance}}": "time() - max by (instance) "
                    "(slurmstack_applied_timestamp_seconds{{C}})"
                },
                "s",
            ),
            Panel(
                "Out of use for a rollout",
                {"hosts": "count(slurmstack_withdrawn{{C}}) or vector(0)"},
            ),
            Panel("Canaries that answer", {"{{instance}}": 'up{job="node",canary="true",{C}}'}),
            Panel(
                "What was known of a host ago",
                {"{{instance}}": "time() - slurmstack_host_metrics_timestamp_seconds{{C}}"},
                "s",
            ),
        ),
        "Prometheus": (
            Panel("Series", {"series": "prometheus_tsdb_head_series{{C}}"}),
            Panel(
                "What a look at a host takes",
                {"{{instance}}": 'scrape_duration_seconds{{C},job="node"}'},
                "s",
            ),
            Panel(
                "Messages that were not delivered, an hour",
                {"{{integration}}": per_hour("alertmanager_notifications_failed_total", "{C}")},
            ),
        ),
    },
)
