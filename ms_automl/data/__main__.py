"""``python -m ms_automl.data``: what a data set holds, and data sets of files made ready for training."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from ms_automl.cli import Parser, one_line_errors, path
from ms_automl.data import DATASETS, inspect
from ms_automl.data.celebamask import source as celebamask
from ms_automl.data.nyuv2 import source as nyuv2
from ms_automl.data.overview import contact_sheet, describe
from ms_automl.data.prepare import DamagedSourceError, prepare
from ms_automl.data.prepared import Prepared
from ms_automl.environment.progress import shown
from ms_automl.errors import ConfigError, DataError, unknown_name

SOURCES = {"nyuv2": nyuv2, "celebamask": celebamask}
_SETTINGS = {"nyuv2": ("height", "width", "classes"), "celebamask": ("size",)}
_EXAMPLES = """\
examples:
  python -m ms_automl.data info rooms --png rooms.png
  python -m ms_automl.data prepare nyuv2 --source downloads/nyuv2 --out data/nyuv2
  python -m ms_automl.data prepare nyuv2 --source NYUD_MT --out data/nyuv2-40 --set height=424 --set width=560
  python -m ms_automl.data prepare celebamask --source downloads/CelebAMask-HQ --out data/faces --set size=256
  python -m ms_automl.data info nyuv2 --data-dir data/nyuv2 --verify

A preset takes the prepared folder: python -m ms_automl.search --preset nyuv2 --data-dir data/nyuv2"""


def _parser() -> Parser:
    parser = Parser(prog="python -m ms_automl.data", description=__doc__, epilog=_EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="info|prepare")
    info = commands.add_parser("info", help="counts, tasks, class balance; a contact sheet of every task")
    info.add_argument("name", help=f"one of {', '.join(DATASETS)}")
    info.add_argument("--seed", type=int, default=0, help="of the splits (0)")
    info.add_argument("--data-dir", type=path, metavar="DIR", help="where the data lies or is kept")
    info.add_argument("--png", type=path, metavar="FILE", help="draw a contact sheet into this file")
    info.add_argument("--verify", action="store_true", help="compare every checksum of a prepared folder")
    ready = commands.add_parser(
        "prepare", help="convert once to what training reads quickly; goes on after a stop"
    )
    ready.add_argument("name", help=f"one of {', '.join(SOURCES)}")
    ready.add_argument(
        "--source", type=path, required=True, metavar="PATH", help="the files as they are published"
    )
    ready.add_argument("--out", type=path, required=True, metavar="DIR", help="a new folder")
    ready.add_argument(
        "--set", action="append", default=[], metavar="KEY=NUMBER", help="such as height, classes, size"
    )
    return parser


def _info(chosen: argparse.Namespace) -> int:
    if chosen.name not in DATASETS:
        raise unknown_name("dataset", chosen.name, list(DATASETS))
    data = DATASETS[chosen.name](chosen.seed, chosen.data_dir)
    with shown(Console(stderr=True), "looking at ", stays=False) as progress:
        warnings = inspect(data, progress)
    print("\n".join([*describe(data), *warnings]))
    if chosen.verify:
        if chosen.data_dir is None or chosen.name not in SOURCES:
            raise ConfigError("--verify needs a prepared folder: give --data-dir")
        if damaged := Prepared(chosen.data_dir).damaged():
            raise DataError(f"changed since it was prepared: {', '.join(map(str, damaged))}; prepare it again")
        print("every checksum is right")
    if chosen.png:
        contact_sheet(data, chosen.png)
    return 0


def _prepare(chosen: argparse.Namespace) -> int:
    if chosen.name not in SOURCES:
        raise unknown_name("dataset of files", chosen.name, list(SOURCES))
    if not chosen.source.is_dir():
        raise DataError(f"--source {chosen.source} is no folder")
    asked = dict(map(_setting, chosen.set))
    for key in asked:
        if key not in _SETTINGS[chosen.name]:
            raise unknown_name(f"setting of {chosen.name}", key, _SETTINGS[chosen.name])
    source = SOURCES[chosen.name](chosen.source, asked)
    counts = ", ".join(f"{part} {len(samples)}" for part, samples in source.parts.items())
    print(f"{source.name} ({source.layout}): {counts}")
    try:
        with shown(Console(stderr=True), "") as progress:
            prepared = prepare(source, chosen.out, progress)
    except DamagedSourceError as error:
        print("\n".join(error.problems), file=sys.stderr)
        raise DataError(
            f"{len(error.problems)} missing or damaged files, listed above; nothing was written"
        ) from error
    size = sum(size for _, size, _ in prepared.files())
    print(f"{chosen.out}: {size / 1e9:.2f} GB; look at it: python -m ms_automl.data info {source.name} "
          f"--data-dir {chosen.out} --png {source.name}.png")  # fmt: skip
    return 0


def _setting(text: str) -> tuple[str, int]:
    key, _, value = text.partition("=")
    if not value.isdigit():
        raise ConfigError(f"--set takes KEY=NUMBER, such as height=288, but got {text}")
    return key, int(value)


def _run(chosen: argparse.Namespace) -> int:
    return _info(chosen) if chosen.command == "info" else _prepare(chosen)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit status: 0, 2 after one line on stderr about what is wrong, 130 after Ctrl-C.
    """
    return one_line_errors(
        lambda: _run(_parser().parse_args(arguments)), arguments, "stopped; start 'prepare' again and it goes on"
    )


if __name__ == "__main__":
    sys.exit(main())
