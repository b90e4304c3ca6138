"""``python -m analysis report`` by a name that is always ours: ``analysis`` may be a module of the user's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ms_automl.cli import Parser, one_line_errors
from ms_automl.environment.siblings import ours

with ours():
    from analysis.__main__ import DESCRIPTION, epilog, options, write

COMMAND = "python -m ms_automl.report"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = options(Parser(prog=COMMAND, description=DESCRIPTION, epilog=epilog(COMMAND)))
    return one_line_errors(lambda: write(parser.parse_args(arguments)), arguments, "stopped")


if __name__ == "__main__":
    sys.exit(main())
