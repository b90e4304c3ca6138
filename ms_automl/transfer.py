"""Does learned sparsity help on tasks that no training has seen?

python -m ms_automl.transfer has the selected models of a finished comparison take up the tasks that its data
held back: with a new head on the frozen sparse trunk, with the trunk fine-tuned and its zeros kept, and jointly
with the old tasks. All models get the same labelled samples, steps and draws of head and order. The dense network,
a new initialisation with each model's zeros, and one without zeros are what they are held against. The runs go to
MLflow below the comparison's, and the report gets a section of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ms_automl.api import write_report
from ms_automl.cli import Parser, names, one_line_errors, path, place
from ms_automl.config import Config, parse, upgraded
from ms_automl.environment import arguments
from ms_automl.environment.process import sigterm_kept
from ms_automl.environment.siblings import ours
from ms_automl.errors import ConfigError, DataError
from ms_automl.storage.files import at_work_in

if TYPE_CHECKING:
    import pandas as pd

    from ms_automl.driver.transfer.experiment import TransferExperiment
    from ms_automl.driver.transfer.source import Source

REPORTS = 8
EPILOG = """\
modes:
  frozen      the new head learns, the trunk stays as it is
  finetuned   trunk and head learn the new task alone; what is zero stays zero
  joint       all heads and the trunk learn, old tasks from all their labels; are they forgotten?

examples:
  python -m ms_automl.transfer --comparison comparisons/rooms-20260101-120000
  python -m ms_automl.transfer --comparison comparisons/rooms-20260101-120000 --task edges --shots 16,64,all
  python -m ms_automl.transfer --comparison 0123456789abcdef0123456789abcdef --arms meta,optuna

The same command again goes on where it was stopped; other tasks, shots, modes or arms are added to what is there.
exit status: 0 all runs ended well, 1 some failed, or MLflow lacks records, 2 bad input, 130 Ctrl-C or SIGTERM.
"""


def _parser() -> Parser:
    parser = Parser(prog="python -m ms_automl.transfer", description=__doc__, epilog=EPILOG)
    parser.add_argument(
        "--comparison", type=place, required=True, metavar="DIR|RUN_ID", help="its folder, or its run in MLflow"
    )
    parser.add_argument(
        "--task", type=names, dest="tasks", metavar="A,B", help="held-back tasks (default: all of them)"
    )
    parser.add_argument(
        "--arms", type=names, metavar="A,B", help="whose models (default: all); dense is always added"
    )
    parser.add_argument(
        "--shots",
        type=names,
        metavar="N,N",
        help="labelled samples (default: those of 16,64,256,all that there are)",
    )
    parser.add_argument("--modes", type=names, metavar="A,B", help="of frozen, finetuned, joint (default: all)")
    parser.add_argument(
        "--draws", type=int, metavar="N", help="of samples and head for each model (default: 3 of a comparison of "
        "one seed, else 1)"
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, metavar="N", help="of an adaptation (default: a quarter of the comparison's trials)"
    )
    parser.add_argument("--out", type=path, metavar="DIR", help="(default: DIR/transfer, or ./transfer-RUN_ID)")
    parser.add_argument("--data-dir", type=path, metavar="DIR", help="where the data lies, as for the search")
    parser.add_argument("--slots", type=int, metavar="N", help="trials at a time (default: one per CPU core)")
    parser.add_argument(
        "--storage", type=place, metavar="URI",
        help="where hosts read models, and a copy of what is done is kept: s3://..., "
        "gs://..., or a folder that all hosts see (default: the comparison's folder, and no copy)"
    )  # fmt: skip
    parser.add_argument("--address", help="of a running Ray cluster; 'auto' on its head (default: this machine)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return one_line_errors(
        lambda: _run(_parser().parse_args(arguments)), arguments, "stopped before any trial began"
    )


def _run(args: argparse.Namespace) -> int:
    given = vars(args)
    del given["debug"]
    result = transfer_selected(**given)
    print(result)
    return 0 if result.complete and not result.lacks else 1


@dataclass(frozen=True)
class TransferResult:
    """What the transfer stage came to.

    Attributes:
        table: a row for each adaptation of a model to a task, with the metrics at its end.
        sentences: whether the arms are better than dense, a line for each question.
        report: the report's page, or why there is none.
        complete: whether all that was asked for has come to its end.
        lacks: what MLflow lacks of it; '' where it has all.
    """

    table: pd.DataFrame
    sentences: tuple[str, ...]
    report: Path | str
    complete: bool
    lacks: str

    def __str__(self) -> str:
        lines = [*self.sentences, f"{'report' if isinstance(self.report, Path) else 'no report'}: {self.report}"]
        if self.lacks:
            complete = "transfer.json is complete, the same command adds what lacks"
            lines.append(f"MLflow lacks some records: {self.lacks}; {complete}")
        return "\n".join(lines)


def transfer_selected(
    comparison: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    arms: Sequence[str] | None = None,
    shots: Sequence[int | str | None] | None = None,
    modes: Sequence[str] | None = None,
    draws: int | None = None,
    steps: int | None = None,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    slots: int | None = None,
    storage: str | None = None,
    address: str | None = None,
    progress: bool = True,
) -> TransferResult:
    """Have the selected models of a finished comparison adapt to unseen tasks, as this module's command does.

    Called again it goes on where it was stopped, and adds what is asked for besides.

    Args:
        comparison: its folder, or its run in MLflow.
        tasks: held-back tasks (default: all of them).
        arms: whose models (default: all); dense is always added.
        shots: labelled samples, ``all`` or None for all that there are (default: those of 16, 64 and 256 that
            every seed has, and all).
        modes: of frozen, finetuned and joint (default: all).
        draws: of samples and head for each model (default: 3 of a comparison of one seed, else 1).
        steps: of an adaptation (default: a quarter of those of the comparison's trials).
        out: folder of the stage (default: ``transfer`` in the comparison's folder, or ``./transfer-RUN_ID``).
        data_dir: where the data lies, as for the search.
        slots: trials at a time (default: one for each CPU core).
        storage: where hosts read models, and a copy of what is done is kept.
        address: of a running Ray cluster; a Ray that the process has already is used.
        progress: whether it is shown how it goes.

    Raises:
        MsAutomlError: before anything trains, in one line what is wrong and what to do.
        KeyboardInterrupt: where it is interrupted; its records are closed, and the same call goes on.
    """
    slots, draws = arguments.whole("--slots", slots, 1), arguments.whole("--draws", draws, 1)
    steps, storage = arguments.whole("--steps", steps, 1), arguments.text("--storage", storage)
    given, where = arguments.path("--out", out), arguments.folder_there("--data-dir", data_dir)
    tasks, address = arguments.names("--task", tasks), arguments.text("--address", address)
    arms, modes, counts = arguments.names("--arms", arms), arguments.names("--modes", modes), _counts(shots)
    from rich.console import Console

    from ms_automl.driver.assembly import look_at_data
    from ms_automl.driver.transfer import earlier
    from ms_automl.driver.transfer.experiment import adaptations
    from ms_automl.driver.transfer.run import run_transfer

    with ours():
        from analysis.records import frames
        from analysis.statistics.transfer import sentences
        from trainables.transfer import MODES

    modes = arguments.among("mode", modes, MODES)
    source, config = _source(str(comparison))
    experiment = _experiment(config, steps, where)
    data, seeds = experiment.data(source.seeds[0]), source.seeds
    if not data.unseen_tasks:
        raise ConfigError(f"the data '{data.name}' holds no task back: give its MultiTaskData `unseen_tasks`")
    unseen = {task.name: task for task in data.unseen_tasks}
    tasks, arms = arguments.among("unseen task", tasks, list(unseen)), source.arms(arms)
    numbers = experiment.possible_shots(seeds, tasks, counts)
    console = Console(quiet=not progress)
    look_at_data(experiment, seeds, console)
    folder = (source.default_folder() if given is None else given).absolute()
    if (folder / "comparison.json").exists():
        raise ConfigError(f"--out {given} holds a comparison: name a folder of the stage's own")
    place = source.storage(storage, folder)
    with sigterm_kept(), at_work_in(folder):
        source, left_out = source.with_models(arms, folder / "models")
        if left_out:
            print(f"left out, without a valid result or a dense reference: {', '.join(left_out)}", file=sys.stderr)
        if place is not None:
            earlier.fetch(folder, place, console.print)
        for name in tasks:
            experiment.check(str(next(iter(source.models.values()))), unseen[name])
        digests = {key: source.digests[key] for key in source.models}
        asked = adaptations(digests, tasks, modes, numbers, draws or (3 if len(seeds) == 1 else 1))
        content, complete, lacks, page = run_transfer(
            source, asked, experiment, folder, report=lambda: write_report(source.folder or source.run_id),
            console=console, address=address, slots=slots or len(os.sched_getaffinity(0)), storage=place,
        )  # fmt: skip
    table = frames.transfer(content)
    return TransferResult(table, tuple(sentences(table)), page, complete, lacks)


def _source(comparison: str) -> tuple[Source, Config]:
    """A comparison that has ended, and its configuration."""
    from ms_automl.callbacks.mlflow.opening import opened
    from ms_automl.driver.transfer.source import Source

    with ours():
        from analysis.records.comparison import load, transfer_record

    record = load(comparison)
    if record.status != "FINISHED" or record.rows.empty:
        raise DataError(
            f"the comparison {comparison} has not ended ({record.status}): let the search finish, or "
            "go on with it by --resume"
        )
    uri, rows = record.tracking_uri, [dict(row) for _, row in record.rows.iterrows()]
    recorded = transfer_record(opened(uri, writes=False), record.run_id, uri)
    return Source(record.run_id, record.folder, uri, rows, recorded), parse(upgraded(record.config))


def _experiment(config: Config, steps: int | None, data_dir: Path | None) -> TransferExperiment:
    from ms_automl.data.factories import OWN, resolve
    from ms_automl.driver.transfer.experiment import TransferExperiment

    steps = steps or max(1, config.training.steps // 4)
    settings = replace(config.training, steps=steps, report_every=max(1, -(-steps // REPORTS)))
    factories = {"data": config.data.factory, "network": config.network.factory}
    # The processes of trials have a main module of their own.
    main = {name: resolve(kind, name, {}) for kind, name in factories.items() if name.startswith("__main__:")}
    return TransferExperiment(config, data_dir, OWN | main, settings=settings)


def _counts(shots: Sequence[int | str | None] | None) -> list[int | None] | None:
    """The numbers of labelled samples that are asked for, None for all."""
    if shots is None:
        return None
    if isinstance(shots, str) or not isinstance(shots, Sequence) or not shots:
        raise ConfigError(f"--shots takes a list of numbers, and 'all', but got {shots!r}")
    return [_count(shot) for shot in shots]


def _count(shot: int | str | None) -> int | None:
    if shot is None or shot == "all":
        return None
    number = int(shot) if isinstance(shot, str) and shot.isdecimal() else shot
    if isinstance(number, str) or (arguments.whole("--shots", number) or 0) < 2:
        raise ConfigError(f"--shots takes numbers of at least 2, and 'all', but got '{number}'")
    return int(number)


if __name__ == "__main__":
    sys.exit(main())
