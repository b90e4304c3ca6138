"""Command line: `python -m analysis report --comparison DIR|RUN_ID`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ms_automl.errors import MsAutomlError

DESCRIPTION = """\
Turns the records of a finished comparison into tables, plots and one page.

  index.html               verdict, tables and plots in one file that needs no network
  summary.md               verdict and table: the description of the parent MLflow run
  table, paired, matched   one line per arm; per pair of arms; per arm at a sparsity (.csv, .md)
  seeds, trials            one line per arm and seed; one line per trial (.csv)
  match, anytime, tasks,   cost to match, curves, test metrics by task, where the time went,
  costs, hypervolume,      Pareto fronts, the winner's curse and what rungs foretell,
  curse, rungs             each where it was recorded (.csv)
  *.png, *.svg             the figures

The records are read from MLflow: from MLFLOW_TRACKING_URI when it is set, else from
the store the comparison names (sqlite:///mlflow.db in the folder where the search ran).
The files are also logged there, as the artifacts report/ of the comparison's run.
"""
EPILOG = """\
examples:
  python -m analysis report --comparison comparisons/rooms-20250101-120000
  python -m analysis report --comparison 0123456789abcdef0123456789abcdef --out report

exit status: 0 the report is written, 2 the comparison cannot be read or the report not written
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser("python -m analysis", description="Reads what a comparison recorded.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "report",
        help="tables, plots and one self-contained page",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "--comparison",
        required=True,
        metavar="DIR|RUN_ID",
        help="the folder with comparison.json, or the MLflow run",
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="where to write (default: DIR/report, or ./report-RUN_ID)"
    )
    command.add_argument("--debug", action="store_true", help="show the traceback of an error")
    arguments = parser.parse_args(argv)
    try:
        from analysis.report import report

        print(f"report: {report(arguments.comparison, arguments.out)}")
    except MsAutomlError as error:
        if arguments.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
