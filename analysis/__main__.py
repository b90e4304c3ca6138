"""Command line: `python -m analysis report --comparison DIR|RUN_ID`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ms_automl.cli import Parser, one_line_errors, path, place
from ms_automl.environment.siblings import ours

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


def epilog(command: str) -> str:
    """What ``--help`` of a command ends with."""
    return f"""\
examples:
  {command} --comparison comparisons/rooms-20250101-120000
  {command} --comparison 0123456789abcdef0123456789abcdef --out report

exit status: 0 the report is written, 2 the comparison cannot be read or the report not written
"""


def options(parser: Parser) -> Parser:
    """A parser that knows what the report is asked for by."""
    parser.add_argument(
        "--comparison",
        type=place,
        required=True,
        metavar="DIR|RUN_ID",
        help="the folder with comparison.json, or the MLflow run",
    )
    parser.add_argument(
        "--out", type=path, metavar="DIR", help="where to write (default: DIR/report, or ./report-RUN_ID)"
    )
    return parser


def write(chosen: argparse.Namespace) -> int:
    """Write the report that was asked for; returns the exit status."""
    with ours():
        from analysis.report.write import report

    print(f"report: {report(chosen.comparison, chosen.out)}")
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m analysis", description="Reads what a comparison recorded.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    told = "tables, plots and one self-contained page"
    options(
        commands.add_parser(
            "report", help=told, description=DESCRIPTION, epilog=epilog("python -m analysis report")
        )
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return one_line_errors(lambda: write(_parser().parse_args(arguments)), arguments, "stopped")


if __name__ == "__main__":
    sys.exit(main())
