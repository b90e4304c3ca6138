"""The sparsifier as a callback of Lightning's Trainer (``pip install lightning``)."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from ms_automl.errors import ConfigError
from ms_automl.sparsifier.sparsifier import Sparsifier


class SparsifierCallback(Callback):
    """Makes a network in a LightningModule sparse while it trains; ``callback.sparsifier`` from the start on.

    Args:
        network: name of the attribute of the LightningModule that holds the network.
        monitor: name of a logged validation loss that the sparsifier is told of; ``price`` needs it.
        arguments: of :class:`~ms_automl.sparsifier.Sparsifier`, without model, optimizer and steps.
    """

    def __init__(self, network: str = "model", *, monitor: str | None = None, **arguments: Any) -> None:
        if "price" in arguments and monitor is None:
            raise ConfigError("`price` learns from a validation loss: name a logged one by monitor='val_loss'")
        self.network, self.monitor, self.arguments = network, monitor, arguments
        self.sparsifier: Sparsifier
        self._state: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the sparsifier, of the optimisers that Lightning has made."""
        model = getattr(pl_module, self.network, None)
        if not isinstance(model, nn.Module):
            held = ", ".join(name for name, _ in pl_module.named_children())
            raise ConfigError(
                f"the LightningModule has no network '{self.network}', but {held}: name the one to thin out"
            )
        steps = trainer.estimated_stepping_batches
        if not steps < float("inf"):
            raise ConfigError("the length of the training must be known: give the Trainer max_steps or max_epochs")
        self.sparsifier = Sparsifier(model, trainer.optimizers, steps=int(steps), **self.arguments)
        if self._state:
            self.sparsifier.load_state_dict(self._state)

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        """The step after the optimiser's, where there was one."""
        self.sparsifier.step()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the loss."""
        if self.monitor is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self.monitor not in trainer.callback_metrics:
            logged = ", ".join(trainer.callback_metrics) or "nothing"
            raise ConfigError(f"monitor='{self.monitor}' was not logged in validation, but {logged}")
        self.sparsifier.observe(float(torch.as_tensor(trainer.callback_metrics[self.monitor])))

    def state_dict(self) -> dict[str, Any]:
        """The sparsifier's, for Lightning's checkpoints."""
        return self.sparsifier.state_dict() if hasattr(self, "sparsifier") else self._state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until the training starts."""
        self._state = state_dict
