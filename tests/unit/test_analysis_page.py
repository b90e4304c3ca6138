"""The page, on records made by hand."""

import re
from html import unescape

import pandas as pd
import pytest
from jinja2 import UndefinedError

from analysis.records import frames
from analysis.records.comparison import ComparisonRecord
from analysis.report.page import TEMPLATES, sections, whole_page
from analysis.statistics.findings import Findings

HOSTILE = """<script>alert("it's")</script>{{ 7 * 7 }}{% raw %}&amp;"""


def record(arm="optuna", **more):
    """Two arms and dense with two seeds and a trial each; `arm` is what one of them is called."""
    rows, trials = [], []
    for place, name in enumerate(("dense", "meta", arm)):
        for seed in (0, 1):
            j = 2.0 - 0.2 * place + 0.1 * seed
            rows.append({"arm": name, "seed": seed, "space": "scalar", "status": "ok", "trials": 1, "passes": 100})
            rows[-1] |= {"objective": j, "test_objective": j, "sparsity_param": 0.5}
            trials.append({"run_id": "", "arm": name, "seed": seed, "method": "fixed_lambda", "index": 0})
            trials[-1] |= {"status": "FINISHED", "outcome": "", "error": "", "val/objective": j, "density": 0.5}
    anytime = pd.DataFrame(columns=frames.ANYTIME_COLUMNS)
    return ComparisonRecord("0" * 32, "sqlite:///x.db", frames.rows(rows), pd.DataFrame(trials), anytime, **more)


def adaptations(task, arms):
    rows = [
        {"task": task, "mode": "joint", "shots": None, "arm": arm, "seed": seed, "weights": "trained", "draw": 0}
        | {"status": "FINISHED", "error": "", "passes": 1.0, "device_seconds": 1.0, "curve": [[0, 1.0]]}
        | {"metrics": {"labels": 8, f"test/{task}/f1": 0.5 + seed / 10}}
        for arm in arms
        for seed in (0, 1)
    ]
    return frames.transfer({"tasks": {task: {"metric": "f1", "unit": "F1", "direction": "max"}}, "rows": rows})


def titles(html):
    return [unescape(title) for title in re.findall(r"<h2>(.*?)</h2>", html)]


def test_a_section_without_content_leaves_no_heading():
    html = whole_page(Findings(record()), {})
    assert {"Comparison", "Paired by seed", "Failures"} < set(titles(html))
    for absent in ("What rungs foretell", "Tasks", "Unseen tasks", "J against sparsity"):
        assert absent not in html


def test_what_anybody_has_named_is_shown_as_it_is_and_never_run(tmp_path):
    svg = tmp_path / "x.svg"
    svg.write_text("<svg/>")
    hostile = record(
        arm=HOSTILE,
        config={HOSTILE: HOSTILE},
        versions={HOSTILE: HOSTILE},
        tags={"preset": HOSTILE, "command": HOSTILE, "machine": HOSTILE, "git_revision": HOSTILE},
        warnings=(HOSTILE,),
        transfer=adaptations(HOSTILE, ("dense", "meta", HOSTILE)),
    )
    hostile.rows["note"] = HOSTILE
    hostile.rows["space"] = HOSTILE
    hostile.trials.loc[2, ["status", "error"]] = ["FAILED", HOSTILE]
    hostile.trials[f"test/{HOSTILE.replace('/', '')}/f1"] = 0.5
    html = whole_page(Findings(hostile), {"scatter": svg, "transfer-" + HOSTILE: svg})
    assert "<script" not in html and "49" not in html and html.count("data:image/svg+xml") == 2
    shown = unescape(html)
    for before in ("searched (", "(space ", '"warning">', "<h3>", "<dd>", "<pre>", "<td>", '<td class="error">'):
        assert before + HOSTILE in shown, before


def test_every_section_has_a_title_and_a_form_and_what_it_lacks_is_an_error():
    layout = TEMPLATES.get_template("sections.html").make_module({"findings": Findings(record())})
    assert set(sections(Findings(record()), {})) <= set(layout.titles)
    assert all(callable(getattr(layout, name)) for name in layout.titles)
    with pytest.raises(UndefinedError, match="'table' was not provided"):
        str(layout.rungs())
