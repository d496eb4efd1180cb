"""The weight of the distillation losses where a recipe has `alpha = "auto"`."""

from __future__ import annotations

import numpy as np

from tutelage.experiment.spec import Experiment, StageSpec
from tutelage.experiment.stage_logits import StageLogits

# Chosen by `benchmarks/defaults.py`; `docs/log.md` has the figures.
_LEAST, _MOST = 0.3, 0.9
_SLOPE = 2.4  # by the share of the baseline's errors that the teacher avoids


def from_accuracies(teacher: float, baseline: float) -> float:
    """The weight for a teacher of some accuracy.

    Formula: `clip(0.3 + 2.4 * (1 - teacher_error / baseline_error), 0.3, 0.9)`

    A student that follows a teacher worse than its baseline at 0.9 ends below the baseline, by up
    to nine points; at 0.3 it does not.

    Args:
        teacher: the teacher's accuracy on the validation images, 0 to 1.
        baseline: the baseline's accuracy on the same images, 0 to 1.

    Returns:
        The weight, rounded to hundredths.

    Example:

    >>> from tutelage.experiment import automatic_alpha
    >>> automatic_alpha.from_accuracies(0.5, 0.6), automatic_alpha.from_accuracies(0.9, 0.875)
    (0.3, 0.78)
    """
    avoided = 1 - (1 - teacher) / max(1 - baseline, 1e-9)
    return round(float(np.clip(_LEAST + _SLOPE * avoided, _LEAST, _MOST)), 2)


def resolve(stage: StageSpec, experiment: Experiment, outputs: StageLogits) -> StageSpec:
    """A stage with a number as its weight.

    Args:
        stage: the stage; if it is a student's, its teacher and the baseline are trained. With
            unlabeled images its weight becomes 1.
        experiment: its experiment.
        outputs: the logits of its models.

    Returns:
        The stage, which is the given one unless its weight is `auto`.
    """
    if stage.targets is None or stage.targets.loss.alpha != "auto":
        return stage
    if experiment.unlabeled is not None:
        return stage.with_alpha(1.0)
    teacher, baseline = (
        outputs.validation_accuracy(experiment.stage(name))
        for name in (stage.targets.teacher, "baseline")
    )
    return stage.with_alpha(from_accuracies(teacher, baseline))
