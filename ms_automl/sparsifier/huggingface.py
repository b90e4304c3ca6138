"""The sparsifier as a callback of Hugging Face's Trainer (``pip install transformers accelerate``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ms_automl.sparsifier.sparsifier import Sparsifier
from ms_automl.storage.tensors import load, save

FOLDER = "sparsifier"
"""Of a checkpoint, beside the Trainer's own files."""


class SparsifierCallback(TrainerCallback):
    """Makes the Trainer's model sparse while it trains; ``callback.sparsifier`` from the start on.

    The model takes images as its first argument, as all vision models of transformers do. Under ``price`` the
    sparsifier learns from the loss of each evaluation.

    Args:
        arguments: of :class:`~ms_automl.sparsifier.Sparsifier`, without model, optimizer and steps.
    """

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.sparsifier: Sparsifier

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the sparsifier, and go on where a checkpoint left off."""
        optimizer = kwargs["optimizer"]
        optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        self.sparsifier = Sparsifier(kwargs["model"], optimizer, steps=state.max_steps, **self.arguments)
        if state.global_step > 0:
            self.sparsifier.load_state_dict(load(_folder(args, state), FOLDER))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The step after the optimiser's."""
        self.sparsifier.step()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell the loss."""
        metrics = kwargs.get("metrics", {})
        if hasattr(self, "sparsifier") and "eval_loss" in metrics:
            self.sparsifier.observe(metrics["eval_loss"])

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Into the checkpoint."""
        if state.is_world_process_zero:
            save(self.sparsifier.state_dict(), _folder(args, state), FOLDER)


def _folder(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
