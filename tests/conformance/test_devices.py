"""Every way of training on a device that is not the CPU: what it forgets to move there fails here."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ms_automl.data import MultiTaskData, on_device
from ms_automl.models import MultiTaskNet
from ms_automl.storage import tensors as checkpoint
from tests.conformance.pretended import DEVICE, There, pretended
from tests.conformance.ways import CASES, LARGE, SETTINGS, Factory, run

SHORT = replace(SETTINGS, steps=6, report_every=3)
"""The zeros are frozen after the fourth step."""

BY_TORCH_FUNC = ("forward_exact", "unrolled", "implicit_cg", "implicit_neumann")
LEFT_OUT = {LARGE, *(f"meta_sparsity, {name}" for name in BY_TORCH_FUNC)}
"""The pretended device has no autocast, and does not get along with torch.func."""


def test_tensors_of_two_devices_do_not_mix() -> None:
    with pretended():
        there, here = torch.ones(3, device=DEVICE), torch.ones(3)
        assert isinstance(there, There)
        assert isinstance(there + 1, There)
        assert isinstance(there * torch.tensor(2.0), There)
        assert (there + here.to(DEVICE)).sum().item() == 6
        assert there[torch.tensor([0, 2])].cpu().tolist() == [1, 1]
        for mixed in (
            lambda: there + here,
            lambda: here.add_(there),
            lambda: torch.stack([there, here]),
            lambda: torch.stack([there[0], here[0]]),
            lambda: here[there.long()],
            lambda: there.index_select(0, torch.tensor([0])),
            lambda: torch.where(there > 0, there, here),
        ):
            with pytest.raises(RuntimeError, match="two devices"):
                mixed()


@pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter")  # it does copy, into what it holds
@pytest.mark.parametrize("case", [case for case in CASES if case not in LEFT_OUT])
def test_on_another_device_a_stopped_run_ends_as_on_the_cpu(
    case: str, tiny_data: MultiTaskData, tiny_network: Callable[..., MultiTaskNet], make: Factory, tmp_path: Path
) -> None:
    wanted = run(make(case, settings=SHORT))
    with pretended():
        data = on_device(tiny_data, DEVICE)
        there = Factory(data, lambda unseen=False: tiny_network(unseen).to(DEVICE))
        first, second = there(case, settings=SHORT), there(case, settings=SHORT)
        reports = [first.step()]
        checkpoint.save(first.state_dict(), tmp_path, "state")
        second.load_state_dict(checkpoint.load(tmp_path, "state"))
        reports += run(second)
    # Some sums are taken in another order there.
    assert reports == [pytest.approx(report, rel=1e-4, abs=1e-6) for report in wanted]
