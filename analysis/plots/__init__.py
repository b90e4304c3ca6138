"""The figures: pure functions from frames to matplotlib figures, readable at the width of a phone."""

from analysis.plots.anytime import anytime_arms_figure, anytime_figure
from analysis.plots.costs import cost_figure
from analysis.plots.lambdas import course_figure, lambda_figure
from analysis.plots.paired import paired_figure
from analysis.plots.pattern import pattern_figure
from analysis.plots.scatter import front_figure, scatter_figure
from analysis.plots.single_task import single_task_figure
from analysis.plots.study import study_figure, study_pattern_figure
from analysis.plots.style import save
from analysis.plots.transfer import transfer_figure

__all__ = [
    "anytime_arms_figure",
    "anytime_figure",
    "cost_figure",
    "course_figure",
    "front_figure",
    "lambda_figure",
    "paired_figure",
    "pattern_figure",
    "save",
    "scatter_figure",
    "single_task_figure",
    "study_figure",
    "study_pattern_figure",
    "transfer_figure",
]
