"""Panels and dashboards by Grafana's own library, from what is asked of Prometheus.

Grafana's data source is a variable of each dashboard, so that a site's Grafana takes the files as
they are (Grafana 11.6's schema, grafana-foundation-sdk 11.6.0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

#: Of 24 columns.
_WIDTH = {"stat": 4, "graph": 12, "table": 12}
_HEIGHT = {"stat": 4, "graph": 8, "table": 8}


@dataclass(frozen=True)
class Panel:
    """One panel: what it says, and the expressions that it shows, each by its legend.

    In expressions ``{C}``, ``{N}`` and ``{J}`` are matchers of the cluster, of hosts and of jobs.
    """

    title: str
    #: Legend (Grafana's ``{{label}}`` among it) → expression.
    asks: Mapping[str, str]
    #: Of Grafana's units: ``s``, ``bytes``, ``Bps``, ``percentunit``, ``watt``, ``celsius``.
    unit: str = "short"
    kind: Literal["stat", "graph", "table"] = "graph"
    stacked: bool = False
    #: What to make of it.
    description: str = ""


@dataclass(frozen=True)
class Page:
    """One dashboard: its place among the others, and its panels by row."""

    name: str
    folder: str
    title: str
    rows: Mapping[str, Sequence[Panel]]
    #: Variable → the query that fills it, beside the data source and the cluster.
    variables: Mapping[str, str] = field(default_factory=dict)


#: Of a cluster, and of the hosts or jobs that a dashboard has as a variable.
_MATCHERS = {
    "{C}": 'cluster="$cluster"',
    "{N}": 'cluster="$cluster",instance=~"$node"',
    "{J}": 'cluster="$cluster",hpc_job=~"$job"',
}


#: The query of the variable ``node``.
NODE = 'label_values(up{job="node",{C}}, instance)'


def per_hour(metric: str, of: str = "{N}") -> str:
    """By how much a counter has grown within an hour."""
    return f"increase({metric}{{{of}}}[1h])"


def per_second(metric: str, of: str = "{N}") -> str:
    """How fast a counter grows now."""
    return f"rate({metric}{{{of}}}[5m])"


def written(expression: str) -> str:
    """An expression as Grafana is given it."""
    for name, matcher in _MATCHERS.items():
        expression = expression.replace(name, matcher)
    return expression


def dashboard(page: Page) -> str:
    """The dashboard's JSON, as Grafana provisions and imports it."""
    # Not above: a stack without monitoring would wait for the library, too.
    from grafana_foundation_sdk.builders import dashboard as board
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

    made = (
        board.Dashboard(page.title)
        .uid(f"slurmstack-{page.name}")
        .tags(["slurmstack"])
        .readonly()
        .refresh("1m")
        .time("now-6h", "now")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(board.DatasourceVariable("datasource").label("data").type("prometheus"))
    )
    for name, query in {"cluster": "label_values(up, cluster)", **page.variables}.items():
        made = made.with_variable(_variable(name, query, several=name != "cluster"))
    number = count(1)
    for title, panels in page.rows.items():
        made = made.with_row(board.Row(title).id(next(number)))
        for panel in panels:
            made = made.with_panel(_panel(panel).id(next(number)))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


def _source() -> Any:
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    return DataSourceRef(type_val="prometheus", uid="${datasource}")


def _variable(name: str, query: str, several: bool) -> Any:
    from grafana_foundation_sdk.builders import dashboard as board
    from grafana_foundation_sdk.models.dashboard import VariableRefresh, VariableSort

    made = (
        board.QueryVariable(name)
        .datasource(_source())
        .query(written(query))
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.NATURAL_ASC)
    )
    return made.multi(True).include_all(True).all_value(".*") if several else made


def _panel(panel: Panel) -> Any:
    from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
    from grafana_foundation_sdk.models.common import StackingMode
    from grafana_foundation_sdk.models.prometheus import PromQueryFormat

    kinds: dict[str, Any] = {
        "stat": stat.Panel, "graph": timeseries.Panel, "table": table.Panel,
    }  # fmt: skip
    made = (
        kinds[panel.kind]()
        .title(panel.title)
        .unit(panel.unit)
        .datasource(_source())
        .span(_WIDTH[panel.kind])
        .height(_HEIGHT[panel.kind])
    )
    if panel.description:
        made = made.description(panel.description)
    if panel.kind == "graph":
        made = made.min(0).fill_opacity(40 if panel.stacked else 8)
        if panel.stacked:
            made = made.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for number, (legend, expression) in enumerate(panel.asks.items()):
        query = (
            prometheus.Dataquery()
            .expr(written(expression))
            .legend_format(legend)
            .ref_id(chr(ord("A") + number))
        )
        if panel.kind != "graph":
            query = query.instant()
        if panel.kind == "table":
            query = query.format(PromQueryFormat.TABLE)
        made = made.with_target(query)
    return made
