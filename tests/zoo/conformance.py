"""What is asked of every network of the zoo, from groups to a file."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from ms_automl.errors import MsAutomlError
from ms_automl.meta import LambdaSchedule
from ms_automl.models import MultiTaskNet
from ms_automl.models.archive import load_weights, save_weights
from ms_automl.models.flops import flops_of_a_sample
from ms_automl.models.leaves import leaves
from ms_automl.models.onnx_form import to_onnx
from ms_automl.models.penalised import told
from ms_automl.models.surgery import Surgery, operate
from ms_automl.sparsifier import Sparsifier
from ms_automl.sparsifier.scope import as_network, kept_modules
from ms_automl.sparsity import build_groups
from ms_automl.sparsity.compact import compact, leftovers, randomised
from ms_automl.sparsity.equality import check_equal, probes

STEPS, TARGET, BATCH = 20, 0.5, 2
STAYING = 0.1
"""Share of the zeros up to which a network is served in full though they stay."""

Build = Callable[[], nn.Module]


@dataclass
class Row:
    """What became of a network.

    Attributes:
        name: of the network.
        parameters: how many numbers it has.
        grouping: the kind of groups that was chosen.
        share: of its parameters, those that λ acts on.
        reached: share of zeros after the learner was asked for ``TARGET``.
        stays: share of the zeros that compaction leaves, over all patterns.
        left: share of the parameters that the compact networks have, over all patterns.
        arithmetic: the same of floating-point operations.
        left_out: what λ does not act on, and why.
        why: reasons for zeros that stay.
        refused: the line by which it is refused.
        seconds: of all of it.
    """

    name: str
    parameters: int = 0
    grouping: str = ""
    share: float = 0.0
    reached: float = 0.0
    stays: float = 0.0
    left: float = 1.0
    arithmetic: float = 1.0
    left_out: str = ""
    why: list[str] = field(default_factory=list)
    refused: str = ""
    seconds: float = 0.0

    @property
    def served(self) -> str:
        """``in full``, ``in part`` or ``refused``."""
        if self.refused:
            return "refused"
        return "in full" if self.reached >= TARGET - 0.02 and self.stays <= STAYING else "in part"


def conform(name: str, build: Build, side: int, patterns: int, *, onnx: bool = False) -> Row:
    """Put a network through everything; what is wrong raises.

    Args:
        name: of the row.
        build: makes the network.
        side: of the images that it takes.
        patterns: random patterns of zeros that are compacted.
        onnx: whether it is exported to ONNX as well.
    """
    began, shape = time.perf_counter(), (3, side, side)
    torch.manual_seed(0)
    model = build()
    row = Row(name, sum(one.numel() for one in model.parameters()))
    try:
        sparsifier = _learned(model, shape)
    except MsAutomlError as error:
        row.refused = str(error)
        assert "\n" not in row.refused
    else:
        row.grouping, row.share = sparsifier.grouping, sparsifier.groups.share
        row.reached, row.left_out = sparsifier.sparsity, told(sparsifier.groups.left_out)
        _given(build(), shape, sparsifier.grouping)
        _exported(sparsifier, shape, onnx=onnx)
        _compacted(row, build(), shape, patterns)
    row.seconds = time.perf_counter() - began
    return row


def _trained(model: nn.Module, shape: tuple[int, int, int], **goal: object) -> Sparsifier:
    """Twenty steps on noise."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images = torch.rand(BATCH, *shape, generator=generator)
    sparsifier = Sparsifier(model, optimizer, example=images[:1], steps=STEPS, **goal)  # type: ignore[arg-type]
    model.train()
    for _ in range(STEPS):
        optimizer.zero_grad()
        outputs = leaves(model(torch.rand(BATCH, *shape, generator=generator)))
        torch.stack([one.float().square().mean() for one in outputs]).sum().backward()
        optimizer.step()
        sparsifier.step()
    return sparsifier


def _learned(model: nn.Module, shape: tuple[int, int, int]) -> Sparsifier:
    """Half of the weights asked for, or as many as λ can take."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = copy.deepcopy(model)
        most = Sparsifier(
            twin, torch.optim.AdamW(twin.parameters()), example=torch.rand(1, *shape), steps=STEPS, target=0.01
        )
        reach = most.groups.share * most.groups.most
        return _trained(model, shape, target=min(TARGET, 0.95 * reach), grouping=most.grouping)


def _given(model: nn.Module, shape: tuple[int, int, int], grouping: str) -> None:
    """A λ that is given, strong enough for zeros in every layer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = copy.deepcopy(model)
        names = Sparsifier(
            twin,
            torch.optim.AdamW(twin.parameters()),
            example=torch.rand(1, *shape),
            steps=STEPS,
            target=0.01,
            grouping=grouping,
        ).groups.names
        schedule = LambdaSchedule.constant(dict.fromkeys(names, 30.0))
        sparsifier = _trained(model, shape, schedule=schedule, grouping=grouping)
    assert sparsifier.sparsity > 0.05


def _exported(sparsifier: Sparsifier, shape: tuple[int, int, int], *, onnx: bool) -> None:
    """The compact network answers as the sparse one does: itself, read from a file, as a program, in ONNX."""
    model = sparsifier.model.eval()
    images = torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        small = sparsifier.compact()
        expected = leaves(small(images))
        _alike(leaves(model(images)), expected)
        network = as_network(copy.deepcopy(model).eval())
        compacted, surgery = compact(network, shape)
        again = copy.deepcopy(network).eval()
        operate(again, Surgery.from_dict(surgery.to_dict()))
        with TemporaryDirectory() as folder:
            save_weights(compacted, Path(folder) / "model.safetensors")
            load_weights(again, Path(folder) / "model.safetensors")
        check_equal(network.double(), again.double(), [one.double() for one in probes(shape)])
        program = torch.export.export(small, (images,)).module()
        _alike(leaves(program(images)), expected)
        if onnx:
            to_onnx(_by_name(compacted, images), shape)  # compared there


def _by_name(network: MultiTaskNet, images: Tensor) -> MultiTaskNet:
    """With a head for each tensor that it gives."""
    count = len(leaves(network.trunk(images)))
    return MultiTaskNet(network.trunk, {f"output {index}": _Leaf(index) for index in range(count)}).eval()


class _Leaf(nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, outputs: object) -> Tensor:
        return leaves(outputs)[self.index]


def _alike(expected: list[Tensor], found: list[Tensor]) -> None:
    assert len(expected) == len(found)
    for one, other in zip(expected, found, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= 1e-4 * float(one.abs().max()) + 1e-6


def _compacted(row: Row, model: nn.Module, shape: tuple[int, int, int], patterns: int) -> None:
    """Random halves of the groups of random weights; ``compact`` compares outputs on images of several scales."""
    network = as_network(model.eval())
    kept = kept_modules(network, shape, (), None, list(model.parameters()), ends=True)
    whole = flops_of_a_sample(network, shape)[1]
    zeros = stayed = 0
    left = arithmetic = 0.0
    whys: dict[str, None] = {}
    removable = build_groups(network, row.grouping, shape, kept).removable.tolist()
    for seed in range(patterns):
        half = randomised(network, seed, zeros=False)
        half.removable = frozenset()
        groups = build_groups(half, row.grouping, shape, kept)
        groups.let_go(removable)
        drawn = torch.rand(len(groups.layer), generator=torch.Generator().manual_seed(seed))
        groups.scale_(((drawn < 0.5) | groups.strongest(drawn)).float())
        small, surgery = compact(half, shape)
        found = leftovers(half, surgery).values()
        zeros, stayed = zeros + sum(one.zeros for one in found), stayed + sum(one.stayed for one in found)
        whys |= dict.fromkeys(one.why for one in found if one.stayed)
        left += sum(one.numel() for one in small.parameters()) / row.parameters / patterns
        arithmetic += flops_of_a_sample(small, shape)[1] / whole / patterns
    row.stays, row.left, row.arithmetic, row.why = stayed / max(1, zeros), left, arithmetic, sorted(whys)
