"""The sparsifier as a callback of Lightning's and of Hugging Face's Trainer."""

import copy

import lightning
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments

from ms_automl.errors import ConfigError
from ms_automl.sparsifier.huggingface import SparsifierCallback as ForTransformers
from ms_automl.sparsifier.lightning import SparsifierCallback as ForLightning
from tests.unit.loops import batches, classifier, example, zeros

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* went at once"),  # trainings of a few steps
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*checkpoint directory .* exists"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore::FutureWarning:lightning"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.:FutureWarning"),
]


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = classifier()

    def training_step(self, batch, index):
        images, labels = batch
        return F.cross_entropy(self.model(images), labels)

    def validation_step(self, batch, index):
        images, labels = batch
        self.log("val_loss", F.cross_entropy(self.model(images), labels))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 24)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loader(count=16):
    images, labels = (torch.cat(part) for part in zip(*batches(count), strict=True))
    return DataLoader(TensorDataset(images, labels), batch_size=16)


def fit(callback, folder, epochs=6, module=None, checkpoint=None, **arguments):
    module = Module() if module is None else module
    trainer = lightning.Trainer(
        max_epochs=epochs, callbacks=[callback], accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, **arguments,
    )  # fmt: skip
    trainer.fit(module, loader(8), loader(2), ckpt_path=checkpoint)
    return module, trainer


def test_lightnings_trainer_ends_with_a_sparse_network(tmp_path):
    callback = ForLightning(example=example(), target=0.6)
    module, _ = fit(callback, tmp_path, accumulate_grad_batches=2)
    sparsifier = callback.sparsifier
    assert sparsifier.steps == sparsifier.taken == 24
    assert 0.6 <= sparsifier.sparsity < 0.7
    assert type(sparsifier.compact()) is type(module.model)


def test_lightnings_checkpoints_hold_the_sparsifier(tmp_path):
    whole = ForLightning(example=example(), target=0.6)
    expected, _ = fit(whole, tmp_path / "whole")
    first = ForLightning(example=example(), target=0.6)

    class Stop(lightning.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    module = Module()
    trainer = lightning.Trainer(
        max_epochs=6, callbacks=[first, Stop()], accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, loader(8), loader(2))
    again = ForLightning(example=example(), target=0.6)
    found, _ = fit(again, tmp_path / "again", checkpoint=tmp_path / "half.ckpt")
    assert again.sparsifier.taken == 48
    assert zeros(again.sparsifier) == zeros(whole.sparsifier)
    for one, other in zip(found.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)


def test_under_a_price_lightnings_callback_learns_from_the_logged_loss(tmp_path):
    callback = ForLightning(example=example(), price=0.5, monitor="val_loss")
    fit(callback, tmp_path, val_check_interval=4)
    assert callback.sparsifier.history["loss/loss"].notna().sum() == 12


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"network": "net"}, "has no network 'net', but model"),
        ({"monitor": "loss"}, "monitor='loss' was not logged in validation, but val_loss"),
    ],
)
def test_what_lightnings_callback_lacks_is_said_in_one_line(arguments, says, tmp_path):
    with pytest.raises(ConfigError, match=says):
        fit(ForLightning(example=example(), target=0.5, **arguments), tmp_path)


def test_a_price_without_a_loss_to_watch_is_refused():
    with pytest.raises(ConfigError, match="monitor='val_loss'"):
        ForLightning(example=example(), price=0.5)


def resnet():
    torch.manual_seed(0)
    config = ResNetConfig(
        num_channels=3, embedding_size=8, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=4
    )
    return ResNetForImageClassification(config)


def samples(count, side=32):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (count,), generator=generator)
    images = torch.randn(count, 3, side, side, generator=generator)
    images[:, 0] += labels[:, None, None] - 1.5
    return [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]


def transform(callback, folder, model=None, resume=None, **arguments):
    model = resnet() if model is None else model
    given = TrainingArguments(
        str(folder), max_steps=24, per_device_train_batch_size=8, learning_rate=3e-3, report_to=[], use_cpu=True,
        disable_tqdm=True, **({"save_strategy": "no"} | arguments),
    )  # fmt: skip
    trainer = Trainer(model, given, train_dataset=samples(64), eval_dataset=samples(16), callbacks=[callback])
    trainer.train(resume_from_checkpoint=resume)
    return model


def images_of(side=32):
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_hugging_faces_trainer_ends_with_a_sparse_model_of_the_same_class(tmp_path):
    callback = ForTransformers(example=images_of(), target=0.5)
    model = transform(callback, tmp_path, gradient_accumulation_steps=2)
    assert callback.sparsifier.taken == 24
    assert 0.5 <= callback.sparsifier.sparsity < 0.6
    small = callback.sparsifier.compact()
    assert type(small) is type(model)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(small(images_of()).logits, model(images_of()).logits, rtol=1e-4, atol=1e-5)
    assert sum(v.numel() for v in small.parameters()) < sum(v.numel() for v in model.parameters())


def test_hugging_faces_checkpoints_hold_the_sparsifier(tmp_path):
    whole = ForTransformers(example=images_of(), target=0.5)
    expected = transform(whole, tmp_path, save_strategy="steps", save_steps=10)
    again = ForTransformers(example=images_of(), target=0.5)
    found = transform(again, tmp_path, resume=str(tmp_path / "checkpoint-10"), save_strategy="no")
    assert zeros(again.sparsifier) == zeros(whole.sparsifier)
    for one, other in zip(copy.deepcopy(found).parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_under_a_price_hugging_faces_callback_learns_from_the_evaluations(tmp_path):
    callback = ForTransformers(example=images_of(), price=0.5)
    transform(callback, tmp_path, eval_strategy="steps", eval_steps=3)
    assert callback.sparsifier.history["loss/loss"].notna().sum() == 8
