"""The arms: ways of choosing λ, a row each, in the order in which tables show them.

What a row needs is imported when its sampler is built: the table itself is read by ``--help`` and by reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ms_automl.comparison.run import FIXED, Role, Suggestion
from ms_automl.environment.siblings import ours
from ms_automl.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from ms_automl.config import Config
    from ms_automl.samplers.base import Sampler, SamplerInputs


@dataclass(frozen=True)
class Arm:
    """A way of choosing λ."""

    about: str  # one line for ``--help`` and reports
    role: Role  # what it stands for in the comparison; its place in tables and its colour follow from that
    sampler: Callable[[SamplerInputs], Sampler]  # builds what proposes the trials of one seed
    first: Suggestion = FIXED  # what its first trial is like, which the budget must afford
    winners: tuple[str, ...] = ("fixed_lambda",)  # the methods whose trials may be selected
    single: bool = False  # whether it runs one trial whatever the budget
    share: float = 1.0  # of the limit that the other arms have; infinite for the reference, charged to nobody
    tunes: bool = False  # whether it searches the training settings that are to be tuned


def _built(name: str) -> Callable[[SamplerInputs], Sampler]:
    def build(given: SamplerInputs) -> Sampler:
        from ms_automl.samplers.builders import SAMPLERS

        return SAMPLERS[name](given)

    return build


def _alone(about: str, role: Role, first: Suggestion, share: float = 1.0) -> Arm:
    """An arm of one trial, whatever the data and the budget."""

    def build(given: SamplerInputs) -> Sampler:
        from ms_automl.samplers.base import ListedTrials

        return ListedTrials([first])

    return Arm(about, role, build, first, (first.method,), single=True, share=share)


def _pruning(about: str, criterion: str) -> Arm:
    """Gradual pruning by a key of ``CRITERIA``."""
    first = Suggestion("pruned", {"criterion": criterion}, {})
    return Arm(about, Role.PRUNED, _built(f"prune-{criterion}"), first, ("pruned",))


def _rival(rule: str, about: str, role: Role = Role.PRUNED, sampler: str = "") -> Arm:
    """A key of ``RIVALS``."""
    return Arm(about, role, _built(sampler or rule), Suggestion("rival", {"rule": rule}, {}), ("rival",))


_META = Suggestion("meta_sparsity", {}, {})
_DENSE, _ALONE, _MTML, _FACTORS = (
    Suggestion(method, {}, {}) for method in ("dense", "single_task", "mtml", "overparam")
)
# The estimator, and its γ, that was the best of those tried (benchmarks/HISTORY.md).
_FORWARD = {"learner": "forward", "decay": 0.99}
_BY_GRADIENT = Suggestion("meta_sparsity", {"learning": _FORWARD, "space": "per_layer"}, {})
_ONE_BY_GRADIENT = Suggestion("meta_sparsity", {"learning": _FORWARD, "space": "scalar"}, {})
_LEVEL = Suggestion("meta_sparsity", {"learning": {"learner": "waterfill"}, "level": 0.5}, {})
_ADAM = Suggestion("fixed_lambda", {"prox_metric": "adam"}, {})
_DSD = Suggestion("rival", {"rule": "dsd"}, {})
_KNOBS = {
    "iht": "spans",
    "l0": "gates' learning rate",
    "hesso": "length",
    "greg": "growth",
    "group-norm": "strength",
}  # that a published default is tuned in (`builders.KNOBS`)
_LEARNED, _SEARCHED, _PAPER = Role.LEARNED, Role.SEARCHED, Role.LITERATURE
ARMS: dict[str, Arm] = {
    "meta": _alone("λ learned in one training", _LEARNED, _META),
    "meta-search": Arm("the learned λ tried and refined as a fixed λ", _LEARNED, _built("meta-search"), _META),
    "meta-optuna": Arm("Optuna's TPE around the learned λ", _LEARNED, _built("meta-optuna"), _META),
    "meta-in-optuna": Arm(
        "Optuna's TPE over the settings of --tune, λ learned inside every trial",
        _LEARNED,
        _built("meta-in-optuna"),
        _META,
        ("meta_sparsity",),
        tunes=True,
    ),
    "optuna": Arm("Optuna's TPE over λ", _SEARCHED, _built("optuna"), tunes=True),
    "optuna-gp": Arm("Optuna's Gaussian process over λ", _SEARCHED, _built("optuna-gp"), tunes=True),
    "optuna-asha": Arm(
        "Optuna's TPE, two thirds stopped at each rung", _SEARCHED, _built("optuna-asha"), tunes=True
    ),
    "topk": Arm(
        "many candidates for a third of a trial, the best to the end", _SEARCHED, _built("topk"), tunes=True
    ),
    "random": Arm("random search over λ", _SEARCHED, _built("random"), tunes=True),
    "random-2x": Arm("random search with twice the budget", _SEARCHED, _built("random-2x"), share=2.0, tunes=True),
    "grid": Arm("log-spaced values of one λ for all layers", _SEARCHED, _built("grid")),
    "path": Arm("the same values upward, each from the weights of the last", _SEARCHED, _built("path")),
    "fixed": Arm("the λ that the preset states", _SEARCHED, _built("fixed"), single=True),
    "fixed-adam": Arm(
        "the same by the proximal step in Adam's metric", _SEARCHED, _built("fixed-adam"), _ADAM, single=True
    ),
    "optuna-level": Arm(
        "the hard search: a Gaussian process over `meta`'s two numbers, its level and λ of the rest",
        _SEARCHED,
        _built("optuna-level"),
        _LEVEL,
        ("meta_sparsity",),
    ),
    "smac": Arm("SMAC's random forest over λ (extra: smac)", _SEARCHED, _built("smac"), tunes=True),
    "smac-level": Arm(
        "the hard search by SMAC (extra: smac)", _SEARCHED, _built("smac-level"), _LEVEL, ("meta_sparsity",)
    ),
    "prune-taylor": _pruning("gradual Taylor pruning, no λ; TPE over its level", "taylor"),
    "prune-magnitude": _pruning("the same by LAMP scores of the weights", "magnitude"),
    "prune-l2": _pruning("the same by the norms within each layer, all of which lose the same share", "l2"),
    "prune-fpgm": _pruning("the same by the distance to all others of the layer (geometric median)", "fpgm"),
    "prune-isomorphic": _pruning("the same by Taylor scores among groups of equal structure", "isomorphic"),
    "iht": _rival("iht", "iterative hard thresholding: the shortest groups held at zero in every other span"),
    "l0": _rival("l0", "hard-concrete gates on groups, under a constraint on their expected number"),
    "hesso": _rival("hesso", "the least salient groups shrunk to zero in ten periods"),
    "greg": _rival("greg", "a penalty that grows where a group is short; the shortest removed"),
    "group-norm": _rival("group-norm", "a penalty 16 times as strong on a layer's shortest; the shortest removed"),
    "pat": _rival("pat", "hard thresholds on latent weights, one budget over all layers"),
    **{
        f"{rule}-tuned": _rival(rule, f"`{rule}`, its {knob} searched by TPE", sampler=f"{rule}-tuned")
        for rule, knob in _KNOBS.items()
    },
    "d-gating": replace(
        _rival(
            "d-gating",
            "groups times trained gates, at a hundredth of the λ that the preset states",
            Role.LITERATURE,
        ),
        single=True,
    ),
    "d-gating-tuned": _rival("d-gating", "the same, TPE over λ", Role.LITERATURE, "d-gating-tuned"),
    "dsd": _alone("dense, sparse, dense: 30 % held at zero for a while", Role.LITERATURE, _DSD),
    "meta-gradient": _alone("λ by layer, learned by the gradient of the validation loss", _PAPER, _BY_GRADIENT),
    "meta-scalar": _alone("the same, one λ for all layers", _PAPER, _ONE_BY_GRADIENT),
    "single-task": _alone(
        "a dense network for each task: charged to nobody", Role.BASELINE, _ALONE, share=math.inf
    ),
    "single-sparse": Arm(
        "the same, group-sparse at the λ that the preset states",
        _PAPER,
        _built("single-sparse"),
        _ALONE,
        ("single_task",),
        single=True,
        share=math.inf,
    ),
    "mtml": _alone("dense, each step an episode of some tasks (meta-learned initialisations)", _PAPER, _MTML),
    "overparam": _alone("dense, over factors of each weight that are multiplied out at the end", _PAPER, _FACTORS),
    "overparam-sparse": Arm(
        "the same, group-sparse at the λ that the preset states",
        _PAPER,
        _built("overparam-sparse"),
        _FACTORS,
        ("overparam",),
        single=True,
    ),
    "overparam-tuned": Arm(
        "the same, TPE over one λ", _PAPER, _built("overparam-tuned"), _FACTORS, ("overparam",)
    ),
    "dense-reg": Arm(
        "dense at the best of 4 weight decays, and of 4 λ whose zeros are not frozen",
        Role.CONTROL,
        _built("dense-reg"),
        _DENSE,
        ("dense", "fixed_lambda"),
    ),
    "dense": _alone(
        "λ = 0: the reference, charged to nobody",
        Role.REFERENCE,
        Suggestion("dense", {"probe": True}, {}),
        share=math.inf,
    ),
}
REFERENCE = next(name for name, arm in ARMS.items() if arm.role is Role.REFERENCE)
"""The arm that all others are relative to."""


def check_names(config: Config) -> None:
    """Raise ConfigError for arms and spaces that do not exist or cannot be compared."""
    with ours():
        from search_spaces import SPACES

    for name in config.arms:
        if name not in ARMS:
            raise unknown_name("arm", name, list(ARMS))
    if config.space not in SPACES:
        raise unknown_name("space", config.space, list(SPACES))
    if len(set(config.arms)) < len(config.arms):
        raise ConfigError(f"arms: each may stand once, but got {', '.join(config.arms)}")
    if set(config.arms) <= {REFERENCE}:
        raise ConfigError(f"arms: name at least one besides {REFERENCE}, which is the reference")
    if config.tune and not any(ARMS[name].tunes for name in config.arms):
        searching = ", ".join(name for name, arm in ARMS.items() if arm.tunes)
        raise ConfigError(
            f"tune: none of the arms {', '.join(config.arms)} searches training settings: add one of "
            f"{searching}, or tune nothing"
        )
