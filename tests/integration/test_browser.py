"""MLflow's pages as a visitor sees them, in a real browser: the run tree, a chart, the report."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.integration.command import ONNX, TINY, finished

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
FLAGS += ("--disable-component-update", "--disable-sync")
SCREENSHOTS = os.environ.get("MS_AUTOML_SCREENSHOTS")
"""A folder to keep what was seen in, to be looked at."""


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    search = finished(folder, "--arms", "random,meta,dense", settings=[*TINY, ONNX, "seeds=2"])
    assert search.status == 0, search.shown + search.errors
    return search


@pytest.fixture(scope="module")
def address(search):
    """Of `mlflow ui` in the comparison's folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (search.folder / "ui.log").open("w") as log:
        command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port)]
        ui = subprocess.Popen(command, cwd=search.folder, stdout=log, stderr=log, start_new_session=True)
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                    break
                except OSError:
                    assert ui.poll() is None, (search.folder / "ui.log").read_text()[-2000:]
                    time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/"
        finally:
            os.killpg(ui.pid, signal.SIGKILL)
            ui.wait()


@pytest.fixture(scope="module")
def browser():
    chromium = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    assert Path(chromium).exists(), "Chromium is missing: apt-get install chromium"
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser, request):
    """A new window; what it shows at the end is kept where that is asked for."""
    page = browser.new_page(viewport={"width": 1500, "height": 950})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    yield page
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{SCREENSHOTS}/{request.node.name}.png")
    page.close()


def visible(page, text):
    expect(page.get_by_text(text, exact=True).first).to_be_visible()


def test_the_run_tree_opens_from_the_comparison_to_its_trials(page, address):
    page.goto(f"{address}#/experiments/1/runs")
    visible(page, "out")
    tree = page.locator(".ag-root-wrapper")
    assert tree.get_by_text("random-0", exact=True).count() == 0
    row = page.locator(".ag-row").filter(has_text="out")
    row.get_by_role("button").first.click()
    for arm in ("random-0", "random-1", "meta-0", "meta-1", "dense-0", "dense-1"):
        visible(page, arm)
    page.locator(".ag-row").filter(has_text="random-1").get_by_role("button").first.click()
    for index in range(3):
        visible(page, f"random-1/{index:02d}")


def test_the_address_that_the_command_prints_opens_charts_of_the_arms_over_the_budget(page, address, search):
    (printed,) = (
        word for line in search.shown.splitlines() for word in line.split() if "viewStateShareKey" in word
    )
    page.goto(address + printed)
    for arm in ("random", "meta", "dense"):
        visible(page, f"Group: {arm}")
    visible(page, "anytime/objective")
    # Drawn, and each arm in a colour of its own.
    points = page.locator(".js-plotly-plot").first.locator(".scatterlayer .trace .point")
    expect(points.first).to_be_visible()
    colours = set(points.evaluate_all("points => points.map(point => point.style.fill)"))
    assert len(colours - {"rgb(0, 0, 0)"}) == 3  # black are the invisible corners of bands
    page.goto(address + printed.replace("&compareRunsMode=CHART", ""))
    visible(page, "test/objective")
    visible(page, "density")


def test_the_parent_run_tells_the_outcome_and_the_data(page, address, search):
    page.goto(f"{address}#/experiments/1/runs/{search.record['mlflow']['run_id']}")
    expect(page.get_by_text("a claim needs 5 seeds", exact=False).first).to_be_visible()
    expect(page.get_by_text("rooms", exact=False).first).to_be_visible()


def test_the_report_is_shown_among_the_artifacts(page, address, search):
    page.goto(f"{address}#/experiments/1/runs/{search.record['mlflow']['run_id']}/artifacts/report/index.html")
    report = page.frame_locator("iframe")
    expect(report.get_by_role("heading", level=1)).to_contain_text("Sparsity strength λ")
    assert report.locator("svg, img").count() > 3
    page.locator("iframe").first.scroll_into_view_if_needed()


def test_a_models_page_has_its_signature(page, address, search):
    (output,) = search.client().get_run(search.runs()["meta-0"].info.run_id).outputs.model_outputs
    page.goto(f"{address}#/experiments/1/models/{output.model_id}/artifacts")
    expect(page.get_by_text("MLmodel", exact=False).first).to_be_visible()


@pytest.mark.parametrize("size", [(390, 844), (1200, 900)], ids=["phone", "desk"])
def test_the_report_alone_fits_the_window_and_asks_for_nothing_from_the_network(browser, search, size):
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto((search.out / "report" / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert all(url.startswith(("file:", "data:")) for url in asked)
    if SCREENSHOTS:
        page.screenshot(path=f"{SCREENSHOTS}/report-{size[0]}.png", full_page=True)
    page.close()
