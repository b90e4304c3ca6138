"""Distributed training: two processes with half of the batch each end as one with all of it."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

from ms_automl.errors import MsAutomlError
from ms_automl.sparsifier import Sparsifier
from tests.unit.loops import batches, example, zeros

STEPS = 24


def network() -> nn.Module:
    """Without batch norm, whose statistics are those of each rank's own samples."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 16, 3),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def train(model: nn.Module, part: slice, loss: float, **goal: float) -> Sparsifier:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsifier = Sparsifier(model, optimizer, example=example(), steps=STEPS, **goal)
    for step, (images, labels) in enumerate(batches(STEPS)):
        optimizer.zero_grad()
        F.cross_entropy(model(images[part]), labels[part]).backward()
        optimizer.step()
        sparsifier.step()
        if "price" in goal and step % 2 == 0:
            sparsifier.observe(loss / (1 + step))
    return sparsifier


def refused(model: nn.Module, steps: int, keep: tuple[str, ...] = ()) -> str:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    try:
        Sparsifier(model, optimizer, example=example(), steps=steps, target=0.5, keep=keep)
    except MsAutomlError as error:
        return str(error)
    return "nothing"


def rank(index: int, folder: str, goal: dict) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=2)
    model = network()
    parallel = nn.parallel.DistributedDataParallel(model)
    sparsifier = train(parallel, slice(8 * index, 8 * index + 8), 1.0 + index, **goal)
    torch.save({"zeros": zeros(sparsifier), "weights": model.state_dict()}, f"{folder}/{index}.pt")
    said = refused(nn.parallel.DistributedDataParallel(network()), steps=10 + index)
    alone = refused(nn.parallel.DistributedDataParallel(network()), steps=10, keep=("nobody",) * index)
    Path(folder, f"{index}.txt").write_text(f"{said}\n{alone}")
    dist.barrier()
    os._exit(0)  # torch's own end of the group aborts now and then: a thread of gloo's is not joined


def both(tmp_path, goal):
    mp.spawn(rank, (str(tmp_path), goal), nprocs=2)
    found = [torch.load(tmp_path / f"{index}.pt", weights_only=True) for index in (0, 1)]
    assert found[0]["zeros"] == found[1]["zeros"]
    return found, [(tmp_path / f"{index}.txt").read_text() for index in (0, 1)]


def test_two_ranks_equal_one_process_with_the_same_batches(tmp_path):
    found, said = both(tmp_path, {"target": 0.6})
    model = network()
    alone = train(model, slice(0, 16), 1.0, target=0.6)
    assert any(zeros(alone))
    for one in found:
        assert one["zeros"] == zeros(alone)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(one["weights"][name], value, rtol=1e-5, atol=1e-5)
    assert all("the ranks of this training differ in the sparsifier's arguments" in line for line in said)
    refused_alone = "`keep` names 'nobody', which the model does not have"
    assert said[0].endswith(f"\nrank 1 of this training refuses: {refused_alone}")
    assert said[1].endswith(f"\n{refused_alone}")


def test_what_ranks_tell_of_losses_is_averaged(tmp_path):
    found, _ = both(tmp_path, {"price": 0.5})
    model = network()
    alone = train(model, slice(0, 16), 1.5, price=0.5)
    assert found[0]["zeros"] == zeros(alone)


def sharded(index: int, folder: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
    model = fully_shard(network(), mesh=init_device_mesh("cpu", (1,)))
    Path(folder, "said.txt").write_text(refused(model, steps=10))
    dist.destroy_process_group()


def test_sharded_parameters_are_refused_in_one_line(tmp_path):
    mp.spawn(sharded, (str(tmp_path),), nprocs=1)
    assert "is sharded over processes (FSDP)" in (tmp_path / "said.txt").read_text()
