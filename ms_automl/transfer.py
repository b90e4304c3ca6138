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
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ms_automl.cli import Parser, one_line_errors, path, place, sigterm_kept
from ms_automl.environment.siblings import ours
from ms_automl.errors import ConfigError, DataError, unknown_name
from ms_automl.samplers.arms import REFERENCE
from ms_automl.storage.files import alone, writable

if TYPE_CHECKING:
    from analysis.records import ComparisonRecord
    from ms_automl.driver.transfer.uptake import TransferExperiment
    from ms_automl.storage.remote import Storage

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
    parser.add_argument("--task", metavar="A,B", help="held-back tasks (default: all of them)")
    parser.add_argument("--arms", metavar="A,B", help="whose models (default: all); dense is always added")
    parser.add_argument(
        "--shots", metavar="N,N", help="labelled samples (default: those of 16,64,256,all that there are)"
    )
    parser.add_argument("--modes", metavar="A,B", help="of frozen, finetuned, joint (default: all)")
    parser.add_argument(
        "--draws", type=int, metavar="N", help="of samples and head for each model (default: 3 of a comparison of "
        "one seed, else 1)"
    )  # fmt: skip
    parser.add_argument(
        "--steps", type=int, metavar="N", help="of an uptake (default: a quarter of the comparison's trials)"
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
    from rich.console import Console

    from ms_automl.callbacks.mlflow.opening import opened
    from ms_automl.config import parse, upgraded
    from ms_automl.driver.looking import look_at_data
    from ms_automl.driver.transfer.journal import TransferJournal
    from ms_automl.driver.transfer.run import run_transfer
    from ms_automl.driver.transfer.stored import stored_lines
    from ms_automl.driver.transfer.uptake import TransferExperiment, digest_of, plan

    with ours():
        from analysis.records import load, transfer_record
        from trainables.transfer import MODES

    modes = _chosen("mode", args.modes, list(MODES))
    for name, value in (("slots", args.slots), ("draws", args.draws), ("steps", args.steps)):
        if value is not None and value < 1:
            raise ConfigError(f"`--{name} 1` or more must hold, but got {value}")
    comparison = load(args.comparison)
    if comparison.status != "FINISHED" or comparison.rows.empty:
        raise DataError(
            f"the comparison {args.comparison} has not ended ({comparison.status}): let the search finish, or "
            "go on with it by --resume"
        )
    config = parse(upgraded(comparison.config))
    base = config.training
    steps = args.steps or max(1, base.steps // 4)
    settings = replace(base, steps=steps, report_every=max(1, -(-steps // REPORTS)))
    experiment = TransferExperiment(config, args.data_dir.resolve() if args.data_dir else None, settings=settings)
    out = (args.out or (comparison.folder / "transfer" if comparison.folder else _default(comparison))).absolute()
    seeds, arms = sorted(set(comparison.rows["seed"])), _arms(comparison, args.arms)
    data = experiment.data(int(seeds[0]))
    if not data.unseen_tasks:
        raise ConfigError(f"the data '{data.name}' holds no task back: give its MultiTaskData `unseen_tasks`")
    tasks = _chosen("unseen task", args.task, [task.name for task in data.unseen_tasks])
    shots = _possible(experiment, [int(seed) for seed in seeds], tasks, args.shots)
    look_at_data(experiment, [int(seed) for seed in seeds], Console())
    uri = comparison.tracking_uri
    recorded = transfer_record(opened(uri, writes=False), comparison.run_id, uri)
    storage = _storage(args, comparison, out)
    with sigterm_kept(), alone(writable(out)):
        models = _models(comparison, arms, out)
        stored = stored_lines(storage, out, print) if storage is not None else []
        for task in data.unseen_tasks:
            if task.name in tasks:
                experiment.check(next(iter(models.values())), task)
        draws = args.draws or (3 if len(seeds) == 1 else 1)
        digests = {key: digest_of(model) for key, model in models.items()}
        asked = plan(digests, tasks, modes, shots, draws)
        if comparison.folder is not None:  # the other arms' too: have they been replaced since their uptakes?
            others = {key: model for key, model in _at_hand(comparison.folder).items() if key not in models}
            digests |= {key: digest_of(model) for key, model in others.items()}
        journal = TransferJournal(
            out, comparison.run_id, asdict(settings), recorded, stored, set(digests.values())
        )
        slots = args.slots or len(os.sched_getaffinity(0))
        return run_transfer(
            Console(), comparison, experiment, models, digests, asked, journal,
            address=args.address, slots=slots, storage=storage,
        )  # fmt: skip


def _default(comparison: ComparisonRecord) -> Path:
    return Path(f"transfer-{comparison.run_id}")


def _storage(args: argparse.Namespace, comparison: ComparisonRecord, out: Path) -> Storage | None:
    """Below ``--storage`` and the comparison's name, as its own; None without that option."""
    from ms_automl.storage.remote import storage_of

    if args.storage is None:
        return None
    if args.out is None and comparison.folder is not None:
        storage = storage_of(args.storage, comparison.folder.absolute()).below(out.name)
    else:
        storage = storage_of(args.storage, out)
    return None if storage.address == str(out) else storage


def _shots(text: str) -> list[int | None]:
    """Counts in the order of their size, None for all."""
    found: set[int | None] = set()
    for word in (part.strip() for part in text.split(",")):
        if word != "all" and not (word.isdecimal() and int(word) >= 2):
            raise ConfigError(f"--shots takes numbers of at least 2, and 'all', but got '{word}'")
        found.add(None if word == "all" else int(word))
    return sorted(found, key=lambda count: (count is None, count or 0))


def _chosen(kind: str, text: str | None, known: list[str]) -> list[str]:
    """The names of an option, all without it."""
    if text is None:
        return known
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, known)
    return [name for name in known if name in names]


def _arms(comparison: ComparisonRecord, text: str | None) -> list[str]:
    """The arms that have a model in some seed, the reference first."""
    valid = comparison.rows[comparison.rows["status"] != "failed"]
    known = [str(arm) for arm in dict.fromkeys(valid["arm"])]
    chosen = _chosen("arm", text, known)
    return [REFERENCE, *(arm for arm in chosen if arm != REFERENCE)]


def _models(comparison: ComparisonRecord, arms: list[str], out: Path) -> dict[tuple[str, int], Path]:
    """Folders by arm and seed, of the seeds that have a dense reference; what is left out is said."""
    from ms_automl.callbacks.mlflow.selected import selected_model

    valid = comparison.rows[comparison.rows["status"] != "failed"]
    there = {(str(arm), int(seed)) for arm, seed in zip(valid["arm"], valid["seed"], strict=True)}
    wanted = [(arm, seed) for seed in sorted({int(seed) for seed in comparison.rows["seed"]}) for arm in arms]
    kept = [(arm, seed) for arm, seed in wanted if {(arm, seed), (REFERENCE, seed)} <= there]
    if not kept:
        raise DataError("no seed of the comparison has a dense reference: nothing can be held against it")
    if left := [f"{arm}-{seed}" for arm, seed in wanted if (arm, seed) not in kept]:
        print(f"left out, without a valid result or a dense reference: {', '.join(left)}", file=sys.stderr)
    uri = comparison.tracking_uri
    return {
        (arm, seed): selected_model(
            comparison.run_id, comparison.folder, f"{arm}-{seed}", out / "models" / f"{arm}-{seed}", uri
        ).absolute()
        for arm, seed in kept
    }


def _at_hand(folder: Path) -> dict[tuple[str, int], Path]:
    """Every selected model of a comparison's folder, by arm and seed."""
    found = [path.parent for path in (folder / "best").glob("*/model.safetensors")]
    return {(path.name.rpartition("-")[0], int(path.name.rpartition("-")[2])): path for path in found}


def _possible(
    experiment: TransferExperiment, seeds: Sequence[int], tasks: Sequence[str], text: str | None
) -> list[int | None]:
    """The numbers of labels: those asked for, or of the usual ones those that every seed and task has.

    Raises:
        ConfigError: where more are asked for than there are.
    """
    from ms_automl.data import labelled

    asked = _shots(text or "16,64,256,all")
    for seed in seeds:
        data = experiment.data(seed)
        for task in (task for task in data.unseen_tasks if task.name in tasks):
            most = len(labelled(data.train, task, None, seed))
            if text is None:
                asked = [count for count in asked if count is None or count < most]
            if too_many := [count for count in asked if count is not None and count > most]:
                raise ConfigError(
                    f"--shots {too_many[0]} is more than the {most} labels of '{task.name}' in the train split"
                )
    return asked


if __name__ == "__main__":
    sys.exit(main())
