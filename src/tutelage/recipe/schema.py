"""The sections of a recipe, and what each key may be."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, ConfigDict, Field, StrictBool, StrictFloat, StrictInt
from pydantic.dataclasses import dataclass

DataName = Literal["digits", "mnist", "cifar10", "folder"]
ModelName = Literal[
    "teacher-2m",
    "student-300k",
    "digits-teacher",
    "digits-student",
    "mlp-1200",
    "mlp-800",
    "mlp-300",
    "mlp-30",
]
MODELS: tuple[str, ...] = get_args(ModelName)
OnLogits = Literal["kd", "standardized-kd", "dkd", "nkd", "dist"]
OnFeatures = Literal["fitnet", "attention-transfer", "similarity-preserving", "rkd", "reviewkd"]
LossName = Literal[OnLogits, OnFeatures]
LOSSES: tuple[str, ...] = get_args(LossName)
SETTINGS: dict[str, tuple[str, ...]] = {  # which losses have each
    "temperature": get_args(OnLogits),
    "beta": ("dkd", "dist"),
    "gamma": ("nkd", "dist"),
    "distance_weight": ("rkd",),
    "angle_weight": ("rkd",),
    "teacher_layer": get_args(OnFeatures),
    "student_layer": get_args(OnFeatures),
}

LARGEST_SEED = 2**31 - 1
Seed = Annotated[StrictInt, Field(ge=0, le=LARGEST_SEED)]
Pixels = Annotated[StrictInt, Field(ge=1, le=4096)]
Reach = Annotated[StrictInt, Field(ge=0, le=32)]
Count = Annotated[StrictInt, Field(ge=1)]
Unit = Annotated[StrictFloat, Field(ge=0, le=1)]
Fraction = Annotated[StrictFloat, Field(ge=0, lt=1)]
Positive = Annotated[StrictFloat, Field(gt=0)]
NonNegative = Annotated[StrictFloat, Field(ge=0)]

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    """The images: which data set, where it is, and how it is split.

    Args:
        name: the data set; `folder` is any image folder or archive of one.
        path: where it is; empty means the usual places.
        validation: the part of the training images kept for validation, above 0 and below 0.5.
        split_seed: the seed of the split into training and validation.
        size: (height, width) in pixels that images are resized to; None leaves them alone.
        unlabeled: a folder of further images, without labels, that the student learns from by its
            teacher alone; then alpha must be 1. None means none.
        transfer: the names of the classes whose images student and baseline learn from; the teacher
            learns from all, and all are in the validation and test parts. None means all.

    Example:
        >>> Data(name="cifar10", size=(32, 32)).size
        (32, 32)
    """

    name: DataName
    path: str = ""
    validation: Annotated[StrictFloat, Field(gt=0, lt=0.5)] = 0.1
    split_seed: Seed = 0
    size: tuple[Pixels, Pixels] | None = None
    unlabeled: str | None = None
    transfer: Annotated[tuple[str, ...], Field(min_length=1)] | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Views:
    """How training images are varied from epoch to epoch.

    Args:
        flip: mirror left-right, alternating each epoch.
        shift: the largest move in each direction, in pixels, 0 to 32; a schedule may have its own.
        distinct: how many views of an image student and baseline see, again and again in turn;
            0 means a new one each epoch, as the teacher always does.

    Example:
        >>> Views(flip=False)
        Views(flip=False, shift=2, distinct=0)
    """

    flip: StrictBool = True
    shift: Reach = 2
    distinct: Annotated[StrictInt, Field(ge=0)] = 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Network:
    """A model: one of this package by name, or another by where it is.

    Args:
        model: one of `MODELS`; needed where there is no file.
        file: a model to take instead: of a teacher, a trained `.keras` or `.onnx` file, a run
            folder, or a `.npy` file of its logits; of a student, a `.keras` file to begin from; of
            both, `package.module:function`, which returns the model. A teacher's may be a list:
            an ensemble.
        combine: what a student learns from an ensemble: the mean of its `logits` or of its
            `probabilities`, or the mean of its `losses` with each; None means logits.
        size: (height, width) in pixels that a model of a file takes; None means the images' own.
        scale: what it takes pixels, of 0 to 255, divided by; None means as they are.
        mean: what is then subtracted, a number a channel.
        std: what is then divided by, a number a channel.

    Example:
        >>> Network(model="digits-teacher").file
        ''
        >>> Network(file="mine.onnx", size=(224, 224), scale=255).size
        (224, 224)
    """

    model: ModelName | None = None
    file: str | tuple[str, ...] = ""
    combine: Literal["logits", "probabilities", "losses"] | None = None
    size: tuple[Pixels, Pixels] | None = None
    scale: Positive | None = None
    mean: tuple[StrictFloat, ...] | None = None
    std: tuple[Positive, ...] | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Term:
    """One distillation loss, its settings and its weight.

    Args:
        name: the loss: on logits `kd`, `standardized-kd`, `dkd`, `nkd` or `dist`; on inner layers
            `fitnet`, `attention-transfer`, `similarity-preserving`, `rkd` or `reviewkd`.
        weight: it is multiplied by this, at least 0; None means the usual: 100 for `fitnet`, 1000
            for `attention-transfer`, 3000 for `similarity-preserving`, 5 for `reviewkd`, 1 for the
            others.
        ramp: how the weight changes: `linear` from 0 up in the first part of the steps, `cosine`
            down to 0 over all of them; None means not at all.
        warmup: that first part of `linear`, above 0, up to 1; None means a tenth.
        temperature: T of a loss on logits, above 0; None means its authors' choice.
        beta: of `dkd` the weight of the classes beside the label, of `dist` of the rows; None means
            its authors' choice.
        gamma: of `nkd` the weight of the classes beside the label, of `dist` of the columns; None
            means its authors' choice.
        distance_weight: of `rkd`, of distances; None means its authors' choice.
        angle_weight: of `rkd`, of angles; None means its authors' choice.
        teacher_layer: the teacher's layer that a loss on inner layers reads; None means picked.
        student_layer: the student's layer; None means picked.

    Source:
        The losses are those of `tutelage.losses`, where their sources are named.

    Example:
        >>> Term(name="rkd", angle_weight=10).angle_weight
        10.0
    """

    name: LossName = "kd"
    weight: NonNegative | None = None
    ramp: Literal["linear", "cosine"] | None = None
    warmup: Annotated[StrictFloat, Field(gt=0, le=1)] | None = None
    temperature: Positive | None = None
    beta: NonNegative | None = None
    gamma: NonNegative | None = None
    distance_weight: NonNegative | None = None
    angle_weight: NonNegative | None = None
    teacher_layer: str | None = None
    student_layer: str | None = None


def _own_settings(term: Term) -> Term:
    for name, owners in SETTINGS.items():
        if (value := getattr(term, name)) is not None and term.name not in owners:
            raise ValueError(
                f"expected {name} with {', '.join(owners)} alone, found {name} = {value} with "
                f"{term.name}"
            )
    if (term.teacher_layer is None) != (term.student_layer is None):
        raise ValueError(
            "expected teacher_layer and student_layer together, found one of them alone"
        )
    if term.warmup is not None and term.ramp != "linear":
        raise ValueError('expected warmup with ramp = "linear" alone, found it without')
    return term


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Loss(Term):
    """What the student minimises: `alpha * sum(weight * loss) + (1 - alpha) * hard_loss`.

    Args:
        alpha: the weight of the distillation losses, 0 to 1.
        more: further losses beside the first, each with its settings and weight.
        generations: how many students are trained, each begun anew and taught by the one before
            it; the last is the run's. None means one.

    Example:
        >>> Loss(alpha=1).name
        'kd'
        >>> [term.name for term in Loss(more=[{"name": "rkd", "weight": 0.1}]).terms()]
        ['kd', 'rkd']
    """

    alpha: Unit = 0.9
    more: tuple[Annotated[Term, AfterValidator(_own_settings)], ...] | None = None
    generations: Count | None = None

    def terms(self) -> tuple[Term, ...]:
        """All losses, the first one first."""
        return (self, *(self.more or ()))


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Schedule:
    """How one model is trained.

    Args:
        epochs: passes over the training part, at least 1.
        batch_size: images per step, at least 1.
        optimizer: `muon` orthogonalises the steps of stochastic gradient descent, `sgd` does not.
        learning_rate: the highest rate, above 0.
        warmup: the part of all steps in which the rate rises, from 0 to below 1.
        momentum: Nesterov's, from 0 to below 1.
        weight_decay: decoupled from the gradient, at least 0.
        label_smoothing: the part of each label spread over all classes, from 0 to below 1.
        dropout: the part of the epochs, from the first on, in which dropout layers drop, 0 to 1.
        cutout: the side of a square that is hidden in each view, in pixels, 0 for none, up to 32.
        shift: the largest move of its views instead of `views.shift`; None means that one.

    Source:
        arXiv 2303.01500, section 5: dropout early in training alone, for models that underfit.
        arXiv 1708.04552: cutout.

    Example:
        >>> Schedule(epochs=10, learning_rate=0.1).batch_size
        128
    """

    epochs: Count
    batch_size: Count = 128
    optimizer: Literal["sgd", "muon"] = "sgd"
    learning_rate: Positive
    warmup: Fraction = 0.2
    momentum: Fraction = 0.9
    weight_decay: NonNegative = 0.005
    label_smoothing: Fraction = 0.0
    dropout: Unit = 1.0
    cutout: Reach = 0
    shift: Reach | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Schedules:
    """How the models are trained; the student's schedule is also the baseline's.

    Args:
        teacher: the teacher's schedule.
        student: the student's and the baseline's schedule.
        precision: of the arithmetic in training; `auto` is the one this machine is fastest in.

    Example:
        >>> fast = Schedule(epochs=1, learning_rate=0.1)
        >>> Schedules(teacher=fast, student=fast).precision
        'auto'
    """

    teacher: Schedule
    student: Schedule
    precision: Literal["auto", "float32", "bfloat16"] = "auto"


def _known(network: Network) -> Network:
    if network.model is None and not network.file:
        raise ValueError(f"expected model, one of {', '.join(MODELS)}, or file, found neither")
    for name in ("size", "scale", "mean", "std"):
        if (value := getattr(network, name)) is not None and not network.file:
            raise ValueError(
                f"expected {name} with a file alone, as {network.model} takes images as they are, "
                f"found {value}"
            )
    if network.combine is not None and isinstance(network.file, str):
        raise ValueError("expected combine with a list of files alone, found one file or none")
    return network


def _alone(network: Network) -> Network:
    if not isinstance(network.file, str):
        raise ValueError(f"expected one file, as there is one student, found {network.file}")
    return network


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """Everything that an experiment is.

    Args:
        name: the stem of the file it was read from; no key of the file.
        seed: of initial weights, order and views, 0 to 2**31 - 1.
        data: the images.
        views: how they are varied.
        teacher: the big model.
        student: the small model.
        loss: what the student minimises.
        schedule: how both are trained.

    Example:
        >>> from tutelage import recipe
        >>> recipe.load("digits").student.model
        'digits-student'
    """

    name: str = "recipe"
    seed: Seed = 0
    data: Data
    views: Views
    teacher: Annotated[Network, AfterValidator(_known)]
    student: Annotated[Network, AfterValidator(_known), AfterValidator(_alone)]
    loss: Annotated[Loss, AfterValidator(_own_settings)]
    schedule: Schedules
