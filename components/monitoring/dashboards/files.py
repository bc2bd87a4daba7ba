"""What Grafana shows: cluster, queue, node, job, GPUs, fabric, and this product itself.

Names of metrics are those of the exporters (docs/monitoring.md), whichever source they come from.
"""

from __future__ import annotations

from components.monitoring.dashboards.hardware import FABRIC, GPUS
from components.monitoring.dashboards.nodes import HOSTS, JOBS
from components.monitoring.dashboards.panels import dashboard
from components.monitoring.dashboards.product import PRODUCT
from components.monitoring.dashboards.slurm import CLUSTER, QUEUE

PAGES = (CLUSTER, QUEUE, HOSTS, JOBS, GPUS, FABRIC, PRODUCT)


def files() -> dict[str, str]:
    """``FOLDER/NAME.json``, the folder being Grafana's, and what it holds."""
    return {f"{page.folder}/{page.name}.json": dashboard(page) for page in PAGES}
