"""The section `schedule` of a recipe."""

import itertools
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tutelage.recipe.values import (
    STRICT,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Proportion,
    Reach,
    Unit,
)

MOMENTUM = ("sgd", "muon")  # the optimizers with a momentum
MILESTONES, GAMMA = (0.5, 0.75), 0.1  # of a step schedule, by default


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Schedule:
    """Training settings of one model.

    Args:
        epochs: passes over the training set, at least 1.
        batch_size: images per step, at least 1.
        gradient_accumulation_steps: parts in which the images of a step are processed one after
            the other, which takes less memory; 1 to `batch_size`. None: on a CPU, as few as keep
            the activations within 512 MiB; on a GPU, 1. Batch normalization, and losses that
            compare images, see one part at a time.
        optimizer: `sgd` with Nesterov momentum, `muon`, which orthogonalizes its updates, `adamw`,
            `lamb`, a class of `keras.optimizers` by its name, such as `Adafactor`, or
            `package.module:name`, a class or function that returns a Keras optimizer and is called
            with `learning_rate`, a Keras schedule.
        learning_rate: peak rate, above 0.
        learning_rate_schedule: how the rate falls after the warm-up: `linear` or `cosine` to zero,
            or `step`: it is multiplied by `gamma` at each of the `milestones`. None: linear.
        milestones: of `step`, ascending fractions of the steps above `warmup` and below 1; None:
            0.5 and 0.75.
        gamma: of `step`, the factor, above 0 and below 1; None: 0.1.
        warmup: fraction of the steps in which the rate rises linearly, from 0 to below 1.
        momentum: Nesterov momentum of `sgd` and `muon`, from 0 to below 1; None: 0.9. Other
            optimizers have none.
        weight_decay: decoupled weight decay, at least 0; biases and normalizations have none.
        clip_norm: largest norm of the gradient of a step, of all weights together; a larger one is
            scaled down to it. None: no limit.
        ema: decay of an exponential moving average of the weights, above 0 and below 1, such as
            0.999; the averaged weights are validated, saved and exported. In step t it is at most
            (1 + t) / (10 + t). None: no average.
        layer_decay: to fine-tune a given student, above 0 and below 1: each layer with a kernel,
            and the normalization behind it, has this times the learning rate of the next one; the
            last one, the head, has the whole rate. None: one rate for all.
        frozen_epochs: to fine-tune a given student, the number of first epochs, below `epochs`,
            that train the head alone; the other layers are frozen, with batch normalization in
            inference mode. Then the optimizer begins anew. None: all layers from the first.
        early_stopping: patience: the training ends after so many epochs without a better figure on
            the validation images, and the weights of the best epoch are kept. None: it ends after
            all epochs, with the weights of the last one.
        monitor: the figure, `val_accuracy` or `val_loss`; None: val_accuracy.
        class_weights: `balanced` weights the hard loss of an image by images / (classes * images of
            its class), counted in the training images. None: no weights.
        sampling: `balanced` draws every class equally often, so that an epoch shows images of small
            classes several times, in the same view, and not all of the large ones. None: each
            image once.
        label_smoothing: fraction of each label spread over all classes, from 0 to below 1.
        dropout: dropout layers are active in this first fraction of the epochs, 0 to 1.
        cutout: side of the square masked in each view, in pixels, 0 (none) to 32.
        shift: overrides `views.shift` for this model; None: no override.

    Source:
        arXiv 1608.03983: cosine, there with restarts.
        arXiv 2303.01500, section 5: early dropout.
        arXiv 1708.04552: cutout.

    Example:
        >>> Schedule(epochs=10, learning_rate=0.1).batch_size
        128
    """

    epochs: Count
    batch_size: Count = 128
    gradient_accumulation_steps: Count | None = None
    optimizer: str = "sgd"
    learning_rate: Positive
    learning_rate_schedule: Literal["linear", "cosine", "step"] | None = None
    milestones: Annotated[tuple[Proportion, ...], Field(min_length=1)] | None = None
    gamma: Proportion | None = None
    warmup: Fraction = 0.2
    momentum: Fraction | None = None
    weight_decay: NonNegative = 0.005
    clip_norm: Positive | None = None
    ema: Proportion | None = None
    layer_decay: Proportion | None = None
    frozen_epochs: Count | None = None
    early_stopping: Count | None = None
    monitor: Literal["val_accuracy", "val_loss"] | None = None
    class_weights: Literal["balanced"] | None = None
    sampling: Literal["balanced"] | None = None
    label_smoothing: Fraction = 0.0
    dropout: Unit = 1.0
    cutout: Reach = 0
    shift: Reach | None = None

    def __post_init__(self) -> None:
        if self.optimizer not in MOMENTUM:
            if self.momentum is not None:
                raise ValueError(
                    f"momentum is for {', '.join(MOMENTUM)}, found momentum = {self.momentum} "
                    f"with {self.optimizer}"
                )
        elif self.momentum is None:
            object.__setattr__(self, "momentum", 0.9)  # the dataclass is frozen
        self._check_milestones()
        if self.monitor is not None and self.early_stopping is None:
            raise ValueError("monitor requires early_stopping, a number of epochs, found none")
        if self.frozen_epochs is not None and self.frozen_epochs >= self.epochs:
            raise ValueError(
                f"expected frozen_epochs below epochs = {self.epochs}, found {self.frozen_epochs}"
            )
        if self.class_weights and self.sampling:
            raise ValueError(
                "class_weights and sampling both balance the classes: expected one, found both"
            )

    def _check_milestones(self) -> None:
        if self.learning_rate_schedule != "step":
            for name in ("milestones", "gamma"):
                if (value := getattr(self, name)) is not None:
                    raise ValueError(
                        f'{name} requires learning_rate_schedule = "step", found {name} = {value} '
                        f"with {self.learning_rate_schedule or 'linear'}"
                    )
            return
        bounds = [self.warmup, *(self.milestones or MILESTONES)]
        if any(low >= high for low, high in itertools.pairwise(bounds)):
            raise ValueError(
                f"expected ascending milestones above warmup = {self.warmup}, found "
                f"{list(bounds[1:])}"
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Schedules:
    """Training settings of all models; the student's schedule also applies to the baseline.

    Args:
        teacher: the teacher's schedule.
        student: the student's and the baseline's schedule.
        precision: training precision; `auto`: bfloat16 if the hardware supports it, else float32.

    Example:
        >>> fast = Schedule(epochs=1, learning_rate=0.1)
        >>> Schedules(teacher=fast, student=fast).precision
        'auto'
    """

    teacher: Schedule
    student: Schedule
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
