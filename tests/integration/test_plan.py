"""`--plan` against the comparison that it was the plan of."""

import os
import shlex
import subprocess
import sys

import pytest

from tests.integration.command import ROOT, SMALL, Search

pytestmark = [pytest.mark.integration, pytest.mark.whole]

ARMS = ("dense", "random", "topk", "optuna-asha", "meta")
STOPPING = ("topk", "optuna-asha")
# An arm that stops trials may end with up to one whole trial left that it cannot begin: below a tenth of eleven.
SETTINGS = [*SMALL, "training.steps=12", "training.report_every=2", "budget.trials=11", "budget.retrain=1"]
COLUMNS = ("trials", "stopped", "retrained", "cost", "passes", "hours")


def table(shown):
    """The plan's numbers by arm; its hours may be too few to tell."""
    rows = {}
    for line in shown.splitlines():
        cells = line.split()
        if cells and cells[0] in (*ARMS, "all") and len(cells) == 1 + len(COLUMNS):
            numbers = [float(cell.strip("x<").replace(",", "")) for cell in cells[1:]]
            rows[cells[0]] = dict(zip(COLUMNS, numbers, strict=True))
    return rows


def spent(search):
    """By arm what the ledger has, retraining included."""
    passes = dict.fromkeys(ARMS, 0.0)
    for charge in search.events("charge"):
        passes[charge["run"].removesuffix("/again").removesuffix("-0")] += charge["passes"]
    return passes


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    options = ("--slots", "2", "--arms", ",".join(ARMS))
    planned = Search(folder, "--plan", *options, settings=SETTINGS).wait()
    assert (planned.status, planned.errors) == (0, "")
    assert not list(folder.iterdir()), "a plan leaves nothing behind"
    found = table(planned.shown)
    assert list(found) == [*ARMS, "all"]
    ran = Search(folder, *options, settings=SETTINGS).wait()
    assert (ran.status, ran.errors) == (0, "")
    return found, ran


def test_the_arms_that_stop_nothing_run_what_was_planned(both):
    planned, ran = both
    for arm, passes in spent(ran).items():
        if arm not in STOPPING:
            row = ran.rows[arm]
            assert (planned[arm]["trials"], planned[arm]["stopped"]) == (row["trials"], 0)
            assert planned[arm]["passes"] == pytest.approx(passes, abs=1)
            assert planned[arm]["retrained"] == len(row["retrained"])


def test_the_arms_that_stop_trials_spend_what_was_planned(both):
    planned, ran = both
    passes = spent(ran)
    for arm in STOPPING:
        assert planned[arm]["passes"] == pytest.approx(passes[arm], rel=0.1)
        row = ran.rows[arm]
        assert planned[arm]["stopped"] > 0 and row["stopped_trials"] > 0
    assert planned["topk"]["trials"] == ran.rows["topk"]["trials"], "its candidates are counted beforehand"


def test_all_together_cost_what_was_planned(both):
    planned, ran = both
    assert planned["all"]["passes"] == pytest.approx(sum(spent(ran).values()), rel=0.1)
    one = ran.rows["random"]["limit"] / 11
    assert planned["all"]["cost"] == pytest.approx(planned["all"]["passes"] / one, abs=0.01)


def test_what_a_finished_comparison_has_still_to_run_is_what_a_larger_budget_adds(both):
    ran = both[1]
    before = {path: path.stat().st_mtime_ns for path in ran.folder.rglob("*")}
    more = Search(ran.folder, "--plan", "--resume", settings=["budget.trials=13"], preset=None).wait()
    assert (more.status, more.errors) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in ran.folder.rglob("*")} == before
    added = table(more.shown)
    assert added["random"]["trials"] == 2 and added["meta"]["trials"] == added["dense"]["trials"] == 0
    assert added["random"]["cost"] == 2.0


def test_the_plan_in_the_documents_is_the_one_that_its_command_gives(tmp_path):
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    command, shown = text.split("planned on a machine without a GPU:\n\n")[1].split("\n\n", 1)
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:2] == ["python", "-m"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    planned = subprocess.run(
        [sys.executable, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert planned.returncode == 0, planned.stderr

    def counted(lines):
        """Without the arm whose stops follow from made-up losses, and hours, which a GPU here would change."""
        rows = [line.split() for line in lines.splitlines()]
        arms = [row for row in rows if len(row) == 7 and row[1].isdigit()]
        return [row[:-1] for row in arms if row[0] not in ("optuna-asha", "all")]

    written = shown.split("\n    5 seeds.")[0]
    assert counted(written) == counted(planned.stdout) and len(counted(written)) == 5
