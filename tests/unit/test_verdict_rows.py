"""Which trained networks the verdict's rows may share."""

import json

import pytest

from benchmarks.verdict import twin

SETTINGS = {"training": {"lr": 0.1}, "objective": {"kind": "target"}, "budget": {"trials": 1}}


def head(arm: str, method: str, values: dict[str, float]) -> dict[str, object]:
    return {"stream": f"{arm}/per_layer/x/0", "seed": 0, "settings": SETTINGS, "method": method, "values": values}


@pytest.mark.parametrize(
    ("known", "asked", "shared"),
    [
        (("prune-taylor", "pruned"), ("prune-taylor", "pruned"), True),
        (("prune-taylor", "pruned"), ("prune-l2", "pruned"), False),
        (("random", "fixed_lambda"), ("random-2x", "fixed_lambda"), True),
        (("dense-reg", "fixed_lambda"), ("fixed", "fixed_lambda"), False),
        (("meta", "meta_sparsity"), ("meta", "meta_sparsity"), False),
    ],
)
def test_a_training_is_shared_where_nothing_but_the_objective_differs(known, asked, shared, tmp_path):
    path = tmp_path / "0.jsonl"
    path.write_text(json.dumps(head(*known, {"x": 1.0}) | {"metrics": {}}) + "\n")
    assert (twin(path, head(*asked, {"x": 1.0})) is not None) is shared
    assert twin(path, head(*asked, {"x": 2.0})) is None
