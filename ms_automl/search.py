"""Learn λ or search for it: compare both under one budget.

python -m ms_automl.search trains sparse multi-task networks with every arm, a way of choosing the sparsity
strength λ, and tells what each reaches and what it costs. All arms share data, network, optimiser, steps per
trial, objective J, bounds of λ and seeds, and each may spend at most `budget.trials` times the passes of one
fixed-λ trial (a pass is forward and backward of one sample). Everything goes to MLflow: run `mlflow ui` in the
same folder.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from ms_automl.api import default_folder, write_report
from ms_automl.cli import Parser, names, one_line_errors, path, place
from ms_automl.config import Config, changed, load_config, presets
from ms_automl.environment.process import undisturbed
from ms_automl.errors import ConfigError
from ms_automl.samplers.arms import ARMS, check_names

EPILOG = """\
examples:
  python -m ms_automl.search                                   the default comparison, 7 to 12 minutes
  python -m ms_automl.search --seeds 5 --plan                  what will that cost?
  python -m ms_automl.search --preset smoke                    does everything work here? about a minute
  python -m ms_automl.search --arms meta,optuna --seeds 5 --set budget.trials=16
  python -m ms_automl.search --out comparisons/mine --resume --set budget.trials=32
  python -m ms_automl.search --set objective.kind=target --set objective.target=0.6
  python -m ms_automl.search --set data.factory=mine:data --set network.factory=mine:network

arms:
{arms}

exit status: 0 at least one arm has a valid result, 1 none has, or MLflow lacks records (--resume logs them), 2 bad
input, 130 Ctrl-C or SIGTERM.
What --set can change is listed by --show-config; docs/own_data.md shows how to bring data and a network.
"""


def _parser() -> Parser:
    wide = max(map(len, ARMS)) + 2
    arms = "\n".join(f"  {name:<{wide}}{arm.about}" for name, arm in ARMS.items())
    parser = Parser(prog="python -m ms_automl.search", description=__doc__, epilog=EPILOG.format(arms=arms))
    parser.add_argument("--preset", help=f"one of {', '.join(presets())} (default: rooms)")
    parser.add_argument("--arms", type=names, metavar="A,B", help="arms to run, by name; dense is always added")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many seeds; a claim needs at least 5")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change one setting")
    parser.add_argument(
        "--tune", action="append", default=[], metavar="KEY[=LOW..HIGH]",
        help="search this training setting besides λ, as training.lr=0.0003..0.03 or training.batch_size=8,16,32",
    )  # fmt: skip
    parser.add_argument(
        "--data-dir", type=path, metavar="DIR", help="where the data lies, for presets without their own"
    )
    parser.add_argument(
        "--out", type=path, metavar="DIR", help="new folder for the results (comparisons/PRESET-TIME)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the comparison in --out")
    parser.add_argument("--slots", type=int, metavar="N", help="trials at a time (default: one per CPU core)")
    parser.add_argument("--address", help="of a running Ray cluster; 'auto' on its head (default: this machine)")
    parser.add_argument(
        "--storage",
        type=place,
        metavar="URI",
        help="where trials leave models: s3://..., gs://..., or a folder that all hosts see (default: --out)",
    )
    parser.add_argument("--plan", action="store_true", help="say what it will cost, and end before it costs it")
    parser.add_argument(
        "--tflops",
        type=float,
        metavar="N",
        help="with --plan: 10^12 operations a second that a device sustains (default: measured; 10 for a GPU that "
        "is not here)",
    )
    parser.add_argument("--show-config", action="store_true", help="print the whole configuration and end")
    return parser


def _going_on(args: argparse.Namespace) -> tuple[dict[str, Any], Config]:
    """The record of the comparison in --out, and the configuration it goes on with."""
    if args.out is None:
        raise ConfigError("--resume goes on with the comparison in --out: name its folder")
    if args.preset or args.arms:
        raise ConfigError("--resume: preset and arms are those of the comparison: leave --preset and --arms out")
    from ms_automl.comparison.resume import may_grow, read_record

    if args.storage and not (args.plan or args.show_config or (args.out / "comparison.json").is_file()):
        from ms_automl.callbacks.backup import fetch
        from ms_automl.storage.remote import storage_of

        fetch(args.out, storage_of(args.storage, args.out.absolute()), print)
    record = read_record(args.out)
    return record, may_grow(record, changed(record["config"], seeds=args.seeds, settings=args.set))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return one_line_errors(
        lambda: _run(_parser().parse_args(arguments)), arguments, "stopped before any trial began"
    )


def _run(args: argparse.Namespace) -> int:
    if args.slots is not None and args.slots < 1 and not args.plan:
        raise ConfigError(f"`slots >= 1` must hold, but got slots={args.slots}")
    args.set += [f"tune.{one}" if "=" in one else f"tune.{one}=" for one in args.tune]
    record = None
    if args.resume:
        record, config = _going_on(args)
    else:
        config = load_config(args.preset or "rooms", arms=args.arms, seeds=args.seeds, settings=args.set)
    check_names(config)
    if args.show_config:
        import yaml

        print(yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True), end="")
        return 0
    from rich.console import Console

    console, cores = Console(), len(os.sched_getaffinity(0))
    if args.plan:
        from ms_automl.driver.plan import plan, show

        here = args.address is None and not config.resources.gpus_per_trial
        slots = cores if args.slots is None and here else args.slots
        resumed = args.out if args.resume else None
        show(plan(config, data_dir=args.data_dir, slots=slots, tflops=args.tflops, resumed=resumed), console)
        return 0
    if args.tflops is not None:
        raise ConfigError("--tflops says what a plan is to assume: add --plan, or leave it out")
    from ms_automl.driver.compare import run_comparison
    from ms_automl.driver.outcome import say_outcome

    out = args.out or default_folder(config)
    slots = args.slots if args.slots is not None else cores
    ended = run_comparison(
        config, out, report=write_report, console=console, data_dir=args.data_dir, address=args.address,
        slots=slots, storage=args.storage, record=record,
    )  # fmt: skip
    with undisturbed():
        say_outcome(console, ended)
    if isinstance(ended.stopped, KeyboardInterrupt):
        return 130
    if ended.stopped is not None:
        raise ended.stopped
    return 0 if ended.valid and not ended.lacks else 1


if __name__ == "__main__":
    sys.exit(main())
