"""The tables of README.md, docs/ and benchmarks/ say what is committed of runs (`make docs`)."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks.reliability import TABLE, known, table

ROOT = Path(__file__).parents[2]
WITH_TABLES = (
    *("README.md", "docs/method.md", "docs/networks.md", "docs/sparsifier.md", "docs/protocol.md"),
    *("benchmarks/RESULTS.md", "benchmarks/HISTORY.md"),
)


@pytest.fixture(scope="module")
def documents():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("documents")
        for name in ("documents", "field_tables", "rows", "tables"):
            del sys.modules[name]


@pytest.mark.parametrize("name", WITH_TABLES)
def test_written_again_a_document_is_what_it_was(documents, name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert documents.written(name, text) == text, f"{name} differs from the records: make docs"


def test_every_region_is_written_by_somebody(documents):
    marked = {}
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")):
        if names := re.findall(r"<!-- (\w+): begin -->", path.read_text(encoding="utf-8")):
            marked[str(path.relative_to(ROOT))] = set(names)
    assert marked == {name: set(regions) for name, regions in documents.DOCUMENTS.items()}
    assert set(marked) == set(WITH_TABLES)


def test_a_figure_that_was_changed_by_hand_is_put_right(documents):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    begin = text.index("<!-- quick: begin -->")
    figure = re.search(r"\d\.\d{3}", text[begin:])
    at = begin + figure.start()
    assert documents.written("README.md", f"{text[:at]}9.999{text[at + 5 :]}") == text


def test_a_region_without_its_markers_is_an_error(documents):
    with pytest.raises(SystemExit, match="field: begin"):
        documents.written("README.md", "a text without regions")


def test_what_is_taken_of_a_comparison_names_no_place(documents, tmp_path):
    report = tmp_path / "comparison" / "report"
    report.mkdir(parents=True)
    for name in documents.TAKEN:
        (report / name).write_text(name)
    record = {"config": {"first_seed": 0}, "versions": {}, "git_revision": "", "cpu": "", "machine": ""}
    elsewhere = {"mlflow": {"tracking_uri": "sqlite:///somewhere"}, "drivers": ["host"], "rows": []}
    (report.parent / "comparison.json").write_text(json.dumps(record | elsewhere))
    documents.take(report.parent, tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {*documents.TAKEN, "run.json"}
    assert json.loads((tmp_path / "kept" / "run.json").read_text()) == record


def test_the_page_of_faults_is_that_of_its_rows():
    assert table(known()) == TABLE.read_text(encoding="utf-8"), "python -m benchmarks.reliability --table"


def written_pages():
    return [
        *(path for folder in ("docs", "benchmarks", "clusters") for path in (ROOT / folder).rglob("*.md")),
        *ROOT.glob("*.md"),
    ]


@pytest.mark.parametrize("page", written_pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue  # somebody else's page
        name, _, place = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{target} is not there"
        if place:
            assert place in anchors(file), f"{target}: no such heading"


def anchors(page):
    """What headings are linked by: small letters, hyphens for spaces, no other signs."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
