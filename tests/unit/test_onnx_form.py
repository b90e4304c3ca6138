"""What runs without torch gives what torch gives."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from ms_automl.callbacks.mlflow.models import _signature
from ms_automl.errors import NetworkError
from ms_automl.models import MultiTaskNet
from ms_automl.models.onnx_form import to_onnx


@pytest.fixture(scope="module")
def network(tiny_network):
    """With zero channels and running statistics that are not those of a new network."""
    network = tiny_network()
    network.train()
    network(torch.randn(16, 2, 8, 8))
    with torch.no_grad():
        for conv in network.penalised().values():
            conv.weight[:, ::2] = 0
    return network


@pytest.fixture(scope="module")
def model(network):
    """Made once, from a network that is in training."""
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model = to_onnx(network, (2, 8, 8))
    assert network.training, "it was to stay as it was"
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    return model


def test_outputs_equal_torch_at_any_batch_size(network, model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["depth", "kind"]
    for count in (1, 7):
        images = torch.randn(count, 2, 8, 8)
        with torch.no_grad():
            expected = network.eval()(images)
        outputs = dict(zip(expected, session.run(None, {"images": images.numpy()}), strict=True))
        for name, output in outputs.items():
            np.testing.assert_allclose(output, expected[name].numpy(), rtol=1e-4, atol=1e-5)


def test_the_signature_names_inputs_and_outputs_with_their_free_axis(model):
    signature = _signature(model)
    assert signature.inputs.to_dict() == [
        {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": (-1, 2, 8, 8)}, "name": "images"}
    ]
    assert [output["name"] for output in signature.outputs.to_dict()] == ["depth", "kind"]
    assert [output["tensor-spec"]["shape"][0] for output in signature.outputs.to_dict()] == [-1, -1]


class _Choosing(nn.Module):
    """Control flow on values, which no graph can hold."""

    def forward(self, images):
        return images if images.sum() > 0 else images * 2


def test_what_cannot_be_exported_is_one_clear_line():
    network = MultiTaskNet(nn.Sequential(nn.Conv2d(2, 2, 1), _Choosing()), {"same": nn.Identity()})
    with pytest.raises(NetworkError, match=r"cannot be exported to ONNX: .") as caught:
        to_onnx(network, (2, 8, 8))
    assert "\n" not in str(caught.value)
