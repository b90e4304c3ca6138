"""The benchmark that the verdict rests on: it can be stopped anywhere, and its tables are made from its rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.integration, pytest.mark.whole]
KINDS = ("lambda", "pattern", "rise", "verdict")


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "benchmarks" / script, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "smoke" / "3.jsonl").read_text().splitlines()]


def outcome(row: dict) -> dict:
    return {key: value for key, value in row.items() if key != "seconds"}


def test_a_verdict_that_was_stopped_goes_on_where_it_was_and_its_tables_follow(tmp_path: Path) -> None:
    arguments = ("--preset", "smoke", "--seeds", "3", "--trials", "3", "--arms")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = run("verdict.py", *arguments, "optuna,meta", "--runs", whole)
    assert done.returncode == 0, done.stderr
    assert [(row["method"], row["trial"]) for row in rows(whole)] == [
        ("dense", 0), ("fixed_lambda", 0), ("fixed_lambda", 1), ("fixed_lambda", 2), ("meta_sparsity", 0)
    ]  # fmt: skip

    (cut / "smoke").mkdir(parents=True)
    lines = (whole / "smoke" / "3.jsonl").read_text().splitlines(keepends=True)
    (cut / "smoke" / "3.jsonl").write_text("".join(lines[:3]))
    again = run("verdict.py", *arguments, "optuna,meta", "--runs", cut)
    assert again.returncode == 0, again.stderr
    assert len(again.stdout.splitlines()) == 2  # two trials were missing
    assert [outcome(row) for row in rows(cut)] == [outcome(row) for row in rows(whole)]

    pruned = run("verdict.py", *arguments, "prune-taylor", "--runs", whole)
    assert pruned.returncode == 0, pruned.stderr
    drawn = run("figures.py", "--preset", "smoke", "--seed", "3", "--runs", whole, "--out", tmp_path / "figures")
    assert drawn.returncode == 0, drawn.stderr
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {f"smoke-{name}.{kind}" for name in KINDS for kind in ("png", "svg")}

    fewer = ("--preset", "smoke", "--seeds", "3", "--trials", "1", "--arms", "optuna")
    other = run("verdict.py", *fewer, "--runs", cut, "--set", "training.lr=0.01")
    assert other.returncode == 0, other.stderr
    assert {row["label"] for row in rows(cut)} >= {"dense/training.lr=0.01"}  # its own dense reference

    results = tmp_path / "HISTORY.md"
    results.write_text("before\n<!-- verdict: begin -->\nold\n<!-- verdict: end -->\nafter\n")
    table = run("tables.py", "--runs", whole, "--results", results)
    assert table.returncode == 0, table.stderr
    text = results.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| meta per_layer − optuna per_layer | 1 |" in text


def test_rows_of_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    assert run("verdict.py", "--preset", "smoke", "--seeds", "3", "--arms", "random", "--trials", "1", "--runs",
               tmp_path).returncode == 0  # fmt: skip
    kept = rows(tmp_path)
    kept[-1]["settings"]["training"]["lr"] = 1.0
    (tmp_path / "smoke" / "3.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    refused = run("verdict.py", "--preset", "smoke", "--seeds", "3", "--arms", "random", "--trials", "1", "--runs",
                  tmp_path)  # fmt: skip
    assert refused.returncode == 1
    assert "was run with other settings (training.lr): take its rows out" in refused.stderr
