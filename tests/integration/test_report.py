"""A small MLflow store in the exact form of the records, read back and turned into a report."""

import re
import shutil
from html import unescape

import pandas as pd
import pytest
from mlflow import MlflowClient
from pandas.testing import assert_frame_equal

from analysis import plots
from analysis.__main__ import main
from analysis.records.comparison import load
from analysis.report.write import report, write_report
from analysis.statistics.findings import Findings
from ms_automl.callbacks.mlflow.opening import sqlite
from tests.integration.fake_search import ARMS, TRIALS, FakeSearch

# SQLAlchemy warns about MLflow's own models.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]

ALL_SECTIONS = (
    *("What tuning costs at matched sparsity", "Comparison", "Paired by seed", "Best J against spent budget"),
    *("Cost to match", "J against sparsity", "Δm against density", "Winner's curse", "What rungs foretell"),
    *(
        "λ by layer",
        "Zeros by layer",
        "Tasks",
        "Where the time went",
        "What λ does",
        "Failures",
        "How to reproduce",
    ),
)


@pytest.fixture(scope="session")
def search(tmp_path_factory):
    """The least that a record of an earlier version holds."""
    folder = tmp_path_factory.mktemp("store")
    return FakeSearch(folder, seeds=2, arms=("dense", "meta", "optuna"), old=True)


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Everything that a record may hold."""
    return FakeSearch(tmp_path_factory.mktemp("whole"), seeds=3)


@pytest.fixture(scope="module", autouse=True)
def no_other_store():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


@pytest.fixture(scope="module")
def page(search, no_other_store):
    return report(search.out)


@pytest.fixture(scope="module")
def page_of_whole(whole, no_other_store):
    return report(whole.out)


def headings(html):
    return [unescape(heading) for heading in re.findall(r"<h2>(.*?)</h2>", html)]


def test_a_folder_is_read_into_tidy_frames(search):
    comparison = load(search.out)
    assert len(comparison.rows) == 6
    assert len(comparison.trials) == 2 * (1 + 1 + TRIALS)
    assert set(comparison.anytime["arm"]) == {"meta", "optuna"}
    assert comparison.trials["status"].eq("FAILED").sum() == 1
    assert comparison.tags["git_revision"] == "4f2a91c"
    assert comparison.tags["machine"] == "Linux x86_64, 2 slots"


def test_another_store_in_the_working_folder_is_not_taken_for_the_comparison_s_own(search, tmp_path, monkeypatch):
    (tmp_path / "mlflow.db").touch()
    monkeypatch.chdir(tmp_path)
    assert len(load(search.out).rows) == 6


def test_a_run_id_gives_the_same_as_its_folder(search, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", search.uri)
    by_id, by_folder = load(search.parent), load(search.out)
    assert by_id.config == by_folder.config
    assert by_id.versions == by_folder.versions
    assert_frame_equal(by_id.rows, by_folder.rows)


def test_the_histories_of_trials_are_not_read(search, monkeypatch):
    asked = []
    history = MlflowClient.get_metric_history

    def counted(client, run_id, key):
        asked.append(key)
        return history(client, run_id, key)

    monkeypatch.setattr(MlflowClient, "get_metric_history", counted)
    load(search.out)
    assert len(asked) == 3 * 6  # three curves of each arm and seed
    assert all(key.startswith("anytime/") for key in asked)


def test_the_report_is_one_page_that_needs_no_network(search, page):
    html = page.read_text(encoding="utf-8")
    assert page == search.out / "report" / "index.html"
    assert "&lt;nan&gt;" in html
    assert 'src="http' not in html and "<script" not in html and "<link" not in html and "@import" not in html
    anchors = re.findall(r'href="([^"]*)"', html)
    assert anchors and all(f'id="{anchor[1:]}"' in html for anchor in anchors)
    assert str(search.out.parent) not in html
    names = {file.name for file in page.parent.iterdir()}
    assert {"table.csv", "table.md", "trials.csv", "anytime.png", "anytime.svg", "scatter.svg"} <= names


def test_the_report_is_logged_to_the_parent_run(search, page):
    logged = {artifact.path for artifact in search.client.list_artifacts(search.parent, "report")}
    assert {"report/index.html", "report/table.csv", "report/anytime.png", "report/anytime.svg"} <= logged


def test_a_record_with_everything_gets_every_section(page_of_whole):
    assert headings(page_of_whole.read_text(encoding="utf-8")) == list(ALL_SECTIONS)


def test_a_section_is_absent_where_its_data_are(page):
    html = page.read_text(encoding="utf-8")
    missing = {"What rungs foretell", "Where the time went", "What λ does"}
    assert headings(html) == [heading for heading in ALL_SECTIONS if heading not in missing]
    assert "retrained" not in html


def test_the_page_speaks_of_what_was_retrained_stopped_and_failed(page_of_whole):
    html = page_of_whole.read_text(encoding="utf-8")
    assert re.search(r'<p class="verdict">.* paired difference in test J, retrained, meta − optuna, is ', html)
    assert "Two trainings of the same λ differ with a standard deviation of 0.0" in html
    assert "Of 153 trials, 1 failed, 9 stopped before their last step" in html


def test_every_figure_is_there_as_png_and_svg_and_on_the_page(page_of_whole):
    html = page_of_whole.read_text(encoding="utf-8")
    for suffix in ("png", "svg"):
        assert len(list(page_of_whole.parent.glob(f"*.{suffix}"))) == 12
    assert html.count("data:image/svg+xml") == 12


def test_every_axis_has_a_label(whole):
    findings = Findings(load(whole.out))
    trials, rows = findings.comparison.trials, findings.comparison.rows
    figures = [
        plots.anytime_figure(findings.curves, findings.ends, dense=findings.dense),
        plots.scatter_figure(trials, findings.chosen),
        plots.front_figure(trials),
        plots.study_figure(findings.study),
    ]
    for figure in figures:
        assert figure.axes[-1].get_xlabel()
        assert all(re.search(r"\(.+\)", axes.get_ylabel()) for axes in figure.axes), "an axis without its unit"
    for figure in (plots.lambda_figure(rows), plots.cost_figure(findings.breakdown)):
        assert re.search(r"\(.+\)", figure.axes[0].get_xlabel())


def test_the_tables_for_programs_hold_the_same_as_the_page(page_of_whole):
    matched = pd.read_csv(page_of_whole.parent / "matched.csv")
    assert set(matched["asked_sparsity"]) == {0.44, 0.7}
    assert (matched.loc[matched["reached"] > 0, "sparsity"] >= matched["asked_sparsity"].min()).all()
    paired = pd.read_csv(page_of_whole.parent / "paired.csv")
    assert set(paired["metric"]) == {"retrained_test_objective"}
    assert (paired["low"] < paired["mean"]).all() and (paired["mean"] < paired["high"]).all()


def test_a_stopped_trial_is_never_the_selected_one(whole):
    findings = Findings(load(whole.out))
    assert findings.chosen.sum() == 3 * len(ARMS)
    assert not (findings.chosen & (findings.comparison.trials["outcome"] == "stopped")).any()


@pytest.mark.whole
def test_under_a_target_the_tables_ask_for_that_sparsity(tmp_path):
    fake = FakeSearch(tmp_path, seeds=2, arms=("dense", "meta", "random", "optuna"), target=0.6)
    comparison = load(fake.out)
    findings = Findings(comparison)
    assert list(findings.matched) == [0.6]
    assert (findings.matched[0.6]["sparsity"].dropna() >= 0.6).all()
    valid = set(comparison.rows.loc[comparison.rows["status"] == "ok", "arm"])
    assert all({pair.left, pair.right} <= valid for pair in findings.pairs if pair.seeds)
    html = write_report(comparison, tmp_path / "report").read_text(encoding="utf-8")
    said = " ".join(html.split())
    assert "among models in which at least 60% of the trunk weights that λ acts on are zero" in said


def test_other_runs_and_unknown_ids_are_refused_in_one_line(search, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", search.uri)
    arm = search.client.search_runs([search.experiment], "tags.`ms_automl.kind` = 'arm'")[0].info.run_id
    for given, words in {
        arm: "not a comparison",
        "0" * 32: "no MLflow run",
        "nowhere": "neither a folder",
    }.items():
        assert main(["report", "--comparison", given]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def files(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["a copy", "100% ü#?"])
def test_in_a_copied_and_in_a_renamed_project_the_report_goes_beside_the_store_that_is_there(
    search, name, tmp_path, capsys
):
    original, copy = search.out.parents[1], tmp_path / name
    shutil.copytree(original, copy)
    before = files(original)
    assert main(["report", "--comparison", str(copy / "comparisons" / "rooms")]) == 0
    assert files(original) == before
    pages = list((copy / "art").glob("*/artifacts/report/index.html"))
    assert [page.parents[2].name for page in pages] == [search.parent]
    assert "was moved from" in capsys.readouterr().err
    renamed = tmp_path / f"{name} again"
    copy.rename(renamed)
    assert main(["report", "--comparison", str(renamed / "comparisons" / "rooms")]) == 0
    assert not copy.exists()
    client = MlflowClient(sqlite(renamed / "mlflow.db"))
    assert "was moved from" in capsys.readouterr().err and client.list_artifacts(search.parent, "report")


def test_a_comparison_below_a_link_finds_its_store(search, tmp_path):
    (tmp_path / "link").symlink_to(search.out.parents[0])
    assert len(load(tmp_path / "link" / "rooms").rows) == 6
