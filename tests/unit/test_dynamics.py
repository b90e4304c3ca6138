from dataclasses import replace

import pytest
import torch

from benchmarks.hypergradient_accuracy import SETTINGS, smooth_data, smooth_network
from ms_automl.errors import ConfigError
from ms_automl.meta.dynamics import Dynamics
from ms_automl.models.cost import Cost
from ms_automl.training import TrainingLoop


def loop_and_dynamics(optimizer: str, **changes: object) -> tuple[TrainingLoop, Dynamics]:
    settings = replace(SETTINGS[optimizer], report_every=1, **changes)  # type: ignore[arg-type]
    loop = TrainingLoop(smooth_data(), smooth_network(), settings, seed=0)
    return loop, Dynamics(loop.network, loop.optimizer, loop.loss, Cost())


@pytest.mark.parametrize("changes", [{}, {"weight_decay": 0.0}, {"momentum": 0.0}])
@pytest.mark.parametrize("optimizer", list(SETTINGS))
def test_the_pure_step_is_torchs_step_of_parameters_and_moments(optimizer: str, changes: dict[str, float]) -> None:
    loop, dynamics = loop_and_dynamics(optimizer, **changes)
    for _ in range(4):
        before, lr = dynamics.point(), loop.lr
        loop.interval()
        expected, found = dynamics.point(), dynamics.step(before, loop.batch, lr)
        torch.testing.assert_close(found.parameters, expected.parameters, rtol=1e-12, atol=1e-14)
        if changes.get("momentum") != 0:  # torch keeps no buffer then
            torch.testing.assert_close(found.moments, expected.moments, rtol=1e-12, atol=1e-14)
        moved = [float((a - b).abs().max()) for a, b in zip(before.parameters, found.parameters, strict=True)]
        assert min(moved) > 0
        if optimizer == "adamw":
            assert found.count == expected.count


def test_the_pure_gradient_is_the_loops_and_moves_no_buffer() -> None:
    loop, dynamics = loop_and_dynamics("sgd")
    loop.interval()
    batch = loop.data.train.batch(torch.arange(6))
    buffers = {name: value.clone() for name, value in loop.network.named_buffers()}
    found = dynamics.gradient(dynamics.parameters, batch)
    assert all(torch.equal(buffers[name], value) for name, value in loop.network.named_buffers())
    expected = torch.autograd.grad(loop.loss(loop.network(batch.images), batch), dynamics.parameters)
    torch.testing.assert_close(found, list(expected), rtol=1e-12, atol=1e-15)


def test_a_hessian_product_is_the_difference_of_gradients_with_the_weight_decay() -> None:
    loop, dynamics = loop_and_dynamics("sgd", weight_decay=0.3)
    batch = loop.data.train.batch(torch.arange(6))
    direction = [torch.randn_like(value.detach()) for value in dynamics.parameters]
    found = dynamics.hessian_product(direction, batch)
    here = [value.detach() for value in dynamics.parameters]
    ends = [
        dynamics.gradient([p + sign * 1e-5 * v for p, v in zip(here, direction, strict=True)], batch)
        for sign in (1, -1)
    ]
    for after, before, v, parameter, product in zip(*ends, direction, here, found, strict=True):
        decay = 0.3 if parameter.ndim >= 2 else 0.0
        torch.testing.assert_close(product, (after - before) / 2e-5 + decay * v, rtol=1e-6, atol=1e-8)


def test_a_weight_that_never_had_a_gradient_has_a_finite_adam_derivative() -> None:
    loop, dynamics = loop_and_dynamics("adamw")
    with torch.no_grad():
        loop.sparsifier.groups.weights[2].zero_()
        for head in loop.network.heads.values():
            for value in head.parameters():
                value.zero_()
    batch, point = loop.data.train.batch(torch.arange(6)), dynamics.point()
    push = [torch.zeros_like(value) for value in point.parameters]
    push[0][0, 0, 0, 0] = 1.0
    moved = torch.func.jvp(
        lambda p: dynamics.step(point.at(p), batch, 0.1).parameters, (point.parameters,), (push,)
    )
    assert all(bool(torch.isfinite(tangent).all()) for tangent in moved[1])


def test_an_optimiser_without_a_functional_form_is_refused_with_those_that_have_one() -> None:
    loop, _ = loop_and_dynamics("sgd")
    with pytest.raises(ConfigError, match="no functional form of RMSprop: train with SGD or AdamW"):
        Dynamics(loop.network, torch.optim.RMSprop(loop.network.parameters()), loop.loss, Cost())


def test_the_loops_optimiser_and_momentum_are_the_settings() -> None:
    assert isinstance(loop_and_dynamics("adamw")[0].optimizer, torch.optim.AdamW)
    sgd = loop_and_dynamics("sgd", momentum=0.7)[0].optimizer
    assert isinstance(sgd, torch.optim.SGD)
    assert {group["momentum"] for group in sgd.param_groups} == {0.7}
    for bad in ({"momentum": 1.0}, {"optimizer": "adam"}):
        with pytest.raises(ConfigError, match="must hold"):
            replace(SETTINGS["sgd"], **bad)  # type: ignore[arg-type]
