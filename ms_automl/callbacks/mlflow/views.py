"""A comparison as a view of MLflow's run page: its arms, with the columns and charts that answer the question.

The page keeps such a view as a tag of the experiment: JSON with a name and times, and in it the state of the page,
deflated and in base64. That is the form of MLflow 3.17, read off the views that its page saves; a page of another
version that cannot read it shows its own columns.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

TAG = "mlflow.sharedViewState."
COLUMNS = (
    "params.`seed`",
    "metrics.`test/objective`",
    "metrics.`val/objective`",
    "metrics.`delta_m`",
    "metrics.`density`",
    "metrics.`cost/passes`",
    "metrics.`cost/device_seconds`",
)
# Sections are named as the page names those it makes itself, by the part of the metric before '/', so that it adds
# no second one of the kind.
SECTIONS = ("anytime", "test", "sparsity", "cost")
LINES = ("anytime/objective", "anytime/test_objective")
SHARES = ("sparsity/trunk", "sparsity/param", "sparsity/group")
BARS = ("test/objective", *SHARES, "cost/passes", "cost/device_seconds")
PLAIN = {"xAxisKey": "step", "lineSmoothness": 0, "useGlobalLineSmoothing": False}
HIDDEN = "anytime/wall_seconds"
OWN = {"deleted": False, "isGenerated": False, "isReordered": False}


def arms_view(name: str, run_id: str, now: int) -> tuple[str, str]:
    """Key and value of the experiment's tag that holds a comparison's view, with its ``?viewStateShareKey=``.

    The page lists it by its name; ``now`` is in milliseconds since 1970.
    """
    arms = f"tags.`ms_automl.comparison` = '{run_id}' and tags.`ms_automl.kind` = 'arm'"
    charts = [_chart("LINE", key, **PLAIN, selectedMetricKeys=[key]) for key in LINES]
    charts += [*(_chart("BAR", key) for key in BARS), _chart("LINE", HIDDEN, deleted=True)]
    state = {
        "searchFilter": arms,
        "orderByKey": "metrics.`test/objective`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(COLUMNS),
        "columnOrder": [],
        "columnWidths": {},
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": charts,
        "compareRunSections": [{"uuid": part, "name": part, "display": True} | OWN for part in SECTIONS],
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "arm"}]},
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }
    packed = "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return TAG + run_id, json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": packed})


def _chart(kind: str, metric: str, **more: Any) -> dict[str, Any]:
    section = metric.partition("/")[0]
    chart = {"uuid": metric, "type": kind, "metricKey": metric, "displayName": metric, "metricSectionId": section}
    return chart | {"runsCountToCompare": 100} | OWN | more
