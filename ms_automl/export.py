"""A compact model out of a finished comparison.

python -m ms_automl.export takes the selected model of an arm, removes the channels that are zero, and writes
what is left in forms that other programs load. Its outputs are compared with those of the model as trained, on
random and on real images, before anything is written.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_automl.api import chosen
from ms_automl.cli import Parser, names, one_line_errors, path, place
from ms_automl.config import parse, upgraded
from ms_automl.environment import arguments
from ms_automl.environment.siblings import ours
from ms_automl.errors import ConfigError

FORMATS = ("safetensors", "torch", "onnx")
ROUNDS = 30
EPILOG = """\
what it writes, below <out>:
  model.safetensors, model.json   for ms_automl.load(<out>)                             (safetensors)
  model.pt2                       for torch.export.load, without this project           (torch)
  model.onnx, mlflow/             for onnxruntime, and as an MLflow model: neither needs torch   (onnx)
  figures.json                    size, arithmetic, time and memory of the compact network, the masked one it
                                  was made of, and the dense one, with batch norms folded (dense) and as trained

examples:
  python -m ms_automl.export --comparison comparisons/rooms-20260101-120000
  python -m ms_automl.export --comparison comparisons/rooms-20260101-120000 --arm optuna --seed 2 --format onnx
  python -m ms_automl.export --comparison 0123456789abcdef0123456789abcdef

exit status: 0 the model is written, 2 bad input, or a model that cannot be compacted.
"""


def _parser() -> Parser:
    parser = Parser(prog="python -m ms_automl.export", description=__doc__, epilog=EPILOG)
    parser.add_argument(
        "--comparison", type=place, required=True, metavar="DIR|RUN_ID", help="its folder, or its run in MLflow"
    )
    parser.add_argument("--arm", help="whose model (default: that of the lowest J on validation, but dense)")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="of which seed (default: that of the lowest J on validation)"
    )
    parser.add_argument(
        "--format", type=names, dest="formats", default=FORMATS, metavar="A,B",
        help=f"of {', '.join(FORMATS)} (default: all)",
    )  # fmt: skip
    parser.add_argument("--out", type=path, metavar="DIR", help="new folder (default: exported/<arm>-<seed>)")
    parser.add_argument("--data-dir", type=path, metavar="DIR", help="where the data lies, as for the search")
    timings = f"timings of each network (default: {ROUNDS})"
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=timings)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    return one_line_errors(lambda: _run(_parser().parse_args(arguments)), arguments, "stopped")


def _run(args: argparse.Namespace) -> int:
    given = vars(args)
    del given["debug"]
    print(export_selected(**given))
    return 0


@dataclass(frozen=True)
class Exported:
    """A compact model that was written.

    Attributes:
        name: ``<arm>-<seed>``.
        objective: J on validation.
        out: its folder.
        figures: size, arithmetic, time and memory, as in ``figures.json``.
    """

    name: str
    objective: float
    out: Path
    figures: dict[str, Any]

    def __str__(self) -> str:
        from ms_automl.driver.exporting import summary_lines

        name = f"{self.name} (J on validation {self.objective:.3f}) in {self.out}"
        return "\n".join([name, *summary_lines(self.figures)])


def export_selected(
    comparison: str | Path,
    arm: str | None = None,
    seed: int | None = None,
    *,
    formats: Sequence[str] = FORMATS,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    rounds: int = ROUNDS,
) -> Exported:
    """Write a compact model out of a finished comparison, as ``python -m ms_automl.export`` does.

    Args:
        comparison: its folder, or its run in MLflow.
        arm: whose model (default: that of the lowest J on validation, but the reference).
        seed: of which seed (default: that of the lowest J on validation).
        formats: of :data:`FORMATS`.
        out: new folder (default: ``exported/<arm>-<seed>``).
        data_dir: where the data lies, as for the search.
        rounds: timings of each network.

    Raises:
        MsAutomlError: where there is no such model, or it cannot be compacted or exported.
    """
    given, where = arguments.path("--out", out), arguments.folder_there("--data-dir", data_dir)
    rounds, seed = arguments.whole("--rounds", rounds, 2) or ROUNDS, arguments.whole("--seed", seed)
    arm = arguments.text("--arm", arm)
    formats = arguments.among("format", arguments.names("--format", formats), FORMATS)
    from ms_automl.callbacks.mlflow.artifacts import selected_model
    from ms_automl.comparison.selection import real_images
    from ms_automl.data.factories import build_data
    from ms_automl.driver.exporting import BATCHES, export

    record, folder = _record(str(comparison))
    config = parse(upgraded(record["config"]))
    if config.training.grouping == "weight":
        raise ConfigError(
            "this comparison zeroed single weights (training.grouping=weight), and a compact network needs "
            "whole channels: there is nothing to take out"
        )
    row = chosen(record["rows"], arm, seed)
    name = f"{row['arm']}-{row['seed']}"
    target = Path("exported") / name if given is None else given
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target} is not empty: name a new folder with --out")
    with tempfile.TemporaryDirectory() as into:
        model = selected_model(str(comparison), folder, name, Path(into))
        data = build_data(config.data.factory, config.data.args, seed=row["seed"], data_dir=where)
        figures = export(model, target, formats, real_images(data, max(BATCHES)), rounds)
    return Exported(name, row["objective"], target, figures)


def _record(comparison: str) -> tuple[dict[str, Any], Path | None]:
    """``comparison.json``, from the folder or from MLflow, and the folder."""
    with ours():
        from analysis.records.comparison import find
        from analysis.records.comparison import load as load_records

    folder, record = find(comparison)
    if record is None:
        found = load_records(comparison)
        record = {"rows": found.rows.to_dict("records"), "config": found.config}
    return record, folder


if __name__ == "__main__":
    sys.exit(main())
