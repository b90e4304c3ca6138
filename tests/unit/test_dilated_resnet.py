"""The dilated ResNet is torchvision's, and everything that works on a trunk works on it."""

import copy
from contextlib import nullcontext
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models import resnet50, resnet101
from torchvision.models._api import WeightsEnum

from ms_automl.errors import NetworkError
from ms_automl.meta import LambdaSchedule
from ms_automl.models import (
    MultiTaskNet,
    check_network,
    dilated_resnet,
    flops_of_a_sample,
    frozen_buffers,
    head_specs,
)
from ms_automl.models.archive import Architecture, load, save_model
from ms_automl.models.onnx_form import to_onnx
from ms_automl.models.surgery import Surgery, operate
from ms_automl.sparsity import GROUPINGS, build_groups, prox_
from ms_automl.sparsity.compact import check_equal, compact
from ms_automl.tasks import classification, depth, normals
from ms_automl.training import TrainingSettings
from search_spaces import SPACES
from tests.unit.test_compact import parameters, trained
from trainables import METHODS

SHAPE = (3, 32, 40)
TASKS = (depth("depth"), normals(), classification("kind", 3))
STAGES = ["layer1", "layer2", "layer3", "layer4"]


def net(shape: tuple[int, int, int] = SHAPE, **arguments: object) -> MultiTaskNet:
    torch.manual_seed(0)
    return dilated_resnet(shape, head_specs(TASKS), **({"width": 2, "hidden": 4} | arguments))


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("shape", [(3, 32, 48), (1, 16, 16), (4, 64, 32)])
def test_every_head_gives_the_shape_its_task_asks_for(shape: tuple[int, int, int], output_stride: int) -> None:
    network = net(shape, output_stride=output_stride)
    check_network(network, shape, TASKS)
    features = network.trunk(torch.zeros(2, *shape))
    assert features.shape == (2, 64, shape[1] // output_stride, shape[2] // output_stride)


def test_one_network_takes_images_of_other_sizes() -> None:
    check_network(net((3, 64, 64)), (3, 32, 40), TASKS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shape": (3, 30, 32)}, "multiples of 8, but got 30 x 32: pad"),
        ({"output_stride": 16}, "multiples of 16, but got 32 x 40: pad"),
        ({"output_stride": 4}, "`output_stride` must be 8 or 16, but got 4"),
        ({"depth": 18}, "blocks of three convolutions: `depth` 50 or 101, but got 18"),
        ({"width": 0}, "must hold, but got width=0, hidden=4"),
        ({"hidden": 0}, "must hold, but got width=2, hidden=0"),
        ({"weights": "DEFAULT"}, "3 channels and width=64, but got 3 channels and width=2"),
        ({"weights": "DEFAULT", "shape": (1, 8, 8), "width": 64}, "but got 1 channels and width=64"),
        ({"weights": "V3", "width": 64}, "resnet50 has no weights 'V3', but IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)
def test_what_it_cannot_be_is_refused_in_one_line(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(NetworkError, match=words) as caught:
        net(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("output_stride", "dilated"), [(8, [False, True, True]), (16, [False, False, True])])
def test_the_trunk_is_torchvisions_to_the_bit(output_stride, dilated, monkeypatch) -> None:
    reference = trained(resnet50(replace_stride_with_dilation=dilated))
    state = reference.state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: state)
    # Whoever asks for pretrained weights gets all of the trunk's.
    network = dilated_resnet((3, 32, 32), {}, output_stride=output_stride, weights="IMAGENET1K_V2").eval()
    reference.avgpool = reference.fc = nn.Identity()
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(network.trunk(images).flatten(1), reference(images))


def test_depth_101_has_the_tensors_of_torchvisions() -> None:
    with torch.device("meta"):
        expected, found = resnet101().state_dict(), dilated_resnet((3, 32, 32), {}, depth=101).trunk.state_dict()
    del expected["fc.weight"], expected["fc.bias"]
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in expected.items()}


def test_without_weights_to_be_had_one_line_says_what_to_do(monkeypatch, tmp_path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no\nnetwork")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(NetworkError, match=r"download https://.+\.pth into .+/checkpoints, or set") as caught:
        net(width=64, weights="IMAGENET1K_V1")
    assert "\n" not in str(caught.value)


def test_the_trunk_is_computed_once_for_all_heads() -> None:
    network, calls = net(), []
    network.trunk.register_forward_hook(lambda *_: calls.append(1))
    network(torch.randn(2, *SHAPE))
    assert len(calls) == 1


def test_the_branches_of_the_blocks_may_go_and_the_signal_still_passes() -> None:
    network = net().eval()
    rest = set(network.penalised()) - network.removable
    assert rest == {"conv1", *(f"{stage}.0.downsample.0" for stage in STAGES)}
    assert len(network.removable) == 3 * (3 + 4 + 6 + 3)
    for name in network.removable:
        nn.init.zeros_(network.penalised()[name].weight)
    images = torch.randn(2, *SHAPE)
    assert not torch.equal(network(images)["depth"], network(2 * images)["depth"])


def loss_of(outputs: dict[str, Tensor]) -> Tensor:
    return torch.stack([output.square().mean() for output in outputs.values()]).sum()


@pytest.mark.parametrize("frozen", [False, True])
def test_checkpointing_changes_no_bit_of_outputs_gradients_or_buffers(frozen: bool) -> None:
    images = torch.randn(4, *SHAPE)
    results = []
    for checkpointing in (False, True):
        network = net(checkpointing=checkpointing).train()
        torch.manual_seed(1)  # the heads drop out
        with frozen_buffers(network) if frozen else nullcontext():
            outputs = network(images)
        twice = [torch.autograd.grad(loss_of(outputs), [*network.parameters()], retain_graph=True) for _ in "12"]
        results.append([*outputs.values(), *twice[0], *twice[1], *network.buffers()])
    assert all(torch.equal(kept, again) for kept, again in zip(*results, strict=True))
    counts = {int(value) for name, value in network.named_buffers() if name.endswith("num_batches_tracked")}
    assert counts == {int(not frozen)}


def test_checkpointing_keeps_less_for_backward() -> None:
    held = []
    for checkpointing in (False, True):
        network, sizes = net(checkpointing=checkpointing), {}

        def keep(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network.trunk(torch.randn(2, *SHAPE))
        held.append(sum(sizes.values()))
    assert held[1] < 0.5 * held[0]


def test_what_is_computed_again_has_the_parameters_of_its_forward() -> None:
    images = torch.randn(4, *SHAPE)
    found = []
    for checkpointing in (False, True):
        network = net(checkpointing=checkpointing).train()
        others = {name: (1.5 * value).detach().requires_grad_() for name, value in network.named_parameters()}
        torch.manual_seed(1)
        loss = loss_of(functional_call(network, others, (images,)))
        found.append(torch.autograd.grad(loss, list(others.values())))
    assert all(torch.equal(kept, again) for kept, again in zip(*found, strict=True))


def test_a_checkpointed_network_can_be_differentiated_by_torch_func() -> None:
    images = torch.randn(2, *SHAPE)
    found = []
    for checkpointing in (False, True):
        trunk = net(checkpointing=checkpointing).trunk.train()
        named = dict(trunk.named_parameters())
        with frozen_buffers(trunk):
            derive = torch.func.grad(lambda p, m=trunk: functional_call(m, p, (images,)).square().mean())
            found.append(derive(named))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_every_grouping_takes_it_and_the_stages_are_those_of_the_paper(grouping: str) -> None:
    network = net()
    groups = build_groups(network, grouping, SHAPE)
    space = SPACES["per_stage"](groups.names, (0.1, 1.0))
    assert list(space.layers) == ["lambda/conv1", *(f"lambda/{stage}" for stage in STAGES)]
    prox_(groups, torch.full_like(groups.size, 1e6))
    kept = groups.layer_sum((groups.norms() > 0).float())
    assert torch.equal(kept, (~groups.removable).float())
    if grouping == "coupled":  # the stem's stream and that of each stage
        assert int(kept.sum()) == 5 and groups.counts[0] == 2


def test_flops_are_those_of_the_layers_and_checkpointing_pays_for_the_second_forward() -> None:
    both, forward = flops_of_a_sample(net(), SHAPE)
    again, same = flops_of_a_sample(net(checkpointing=True), SHAPE)
    sizes: dict[nn.Module, int] = {}
    network = net().eval()
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        layer.register_forward_hook(lambda layer, _, output: sizes.update({layer: output[0, 0].numel()}))
    network(torch.zeros(1, *SHAPE))
    assert forward == same == 2 * sum(layer.weight.numel() * sizes[layer] for layer in layers)
    assert 2.5 * forward < both < 3 * forward
    trunk = flops_of_a_sample(MultiTaskNet(net().trunk, {"features": nn.Identity()}), SHAPE)[1]
    assert both + 0.5 * trunk < again < both + trunk


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("grouping", ["input_channel", "output_channel", "coupled"])
def test_a_compact_network_computes_what_the_masked_one_does(grouping: str, share: float) -> None:
    network = trained(net(width=4))
    groups = build_groups(network, grouping, SHAPE)
    gone = (torch.rand(len(groups.layer)) < share) & ~groups.strongest(groups.norms())
    groups.scale_((~gone).float())
    small, surgery = compact(network, SHAPE)
    assert check_equal(network, small, torch.rand(3, *SHAPE)) <= 1e-5
    assert check_equal(network, small, torch.rand(1, 3, 64, 32)) <= 1e-5  # of another size too
    assert parameters(small) < parameters(network)
    assert len(surgery.folded) == 53 + 2 * 7  # every batch norm
    again = operated(network, surgery)
    again.load_state_dict(small.state_dict())
    check_equal(small, again, torch.rand(2, *SHAPE))


def operated(network: MultiTaskNet, surgery: Surgery) -> MultiTaskNet:
    again = copy.deepcopy(network)
    operate(again, Surgery.from_dict(surgery.to_dict()))
    return again


@pytest.mark.integration
@pytest.mark.whole
def test_dense_and_compact_network_run_in_onnx() -> None:
    network = trained(net(width=1, hidden=2))
    to_onnx(network, SHAPE)  # it compares outputs itself
    groups = build_groups(network, "coupled", SHAPE)
    gone = (torch.arange(len(groups.layer)) % 2 == 0) & ~groups.strongest(groups.norms())
    gone |= groups.removable[groups.layer] & (groups.layer > 20)  # whole branches
    groups.scale_((~gone).float())
    small, surgery = compact(network, SHAPE)
    assert surgery.empty
    to_onnx(small, SHAPE)


def test_a_stored_model_is_loaded_without_the_pretrained_weights(tmp_path) -> None:
    network = net()
    arguments = {"width": 2, "hidden": 4, "weights": "DEFAULT"}  # which this width would refuse
    save_model(network, tmp_path, Architecture("dilated_resnet", arguments, SHAPE, head_specs(TASKS)))
    images = torch.randn(2, *SHAPE)
    assert torch.equal(load(tmp_path)(images)["depth"], network.eval()(images)["depth"])


@pytest.mark.parametrize("grouping", ["input_channel", "coupled"])
def test_it_trains_and_loses_groups(tiny_data, grouping: str) -> None:
    shape, specs = tiny_data.image_shape, head_specs(tiny_data.tasks)
    network = dilated_resnet(shape, specs, width=2, hidden=4, checkpointing=True)
    names = build_groups(network, grouping, shape).names
    settings = TrainingSettings(steps=8, batch_size=6, report_every=4, grouping=grouping)
    schedule = LambdaSchedule.constant(dict.fromkeys(names, 30.0))
    method = METHODS["fixed_lambda"].build(tiny_data, network, settings, 0, schedule=schedule)
    reports = [method.step(), method.step()]
    assert method.done
    assert 0 < reports[-1]["density"] < 1
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    compact(network, shape, tiny_data.val.batch(torch.arange(4)).images)
