"""The sections and keys of a recipe, and the values each key allows."""

import itertools
import math
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    WithJsonSchema,
)
from pydantic.dataclasses import dataclass

from tutelage.recipe import suggestions
from tutelage.recipe.reference import is_reference

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
TrackerName = Literal["tensorboard", "mlflow", "wandb"]
LOSSES: tuple[str, ...] = get_args(LossName)
SETTINGS: dict[str, tuple[str, ...]] = {  # the losses that have each setting
    "temperature": get_args(OnLogits),
    "beta": ("dkd", "dist"),
    "gamma": ("nkd", "dist"),
    "distance_weight": ("rkd",),
    "angle_weight": ("rkd",),
    "teacher_layer": get_args(OnFeatures),
    "student_layer": get_args(OnFeatures),
}
MOMENTUM = ("sgd", "muon")  # the optimizers with a momentum
MILESTONES, GAMMA = (0.5, 0.75), 0.1  # of a step schedule, by default

LARGEST_SEED = 2**31 - 1
Seed = Annotated[StrictInt, Field(ge=0, le=LARGEST_SEED)]
Pixels = Annotated[StrictInt, Field(ge=1, le=4096)]
Reach = Annotated[StrictInt, Field(ge=0, le=32)]
Count = Annotated[StrictInt, Field(ge=1)]
Unit = Annotated[StrictFloat, Field(ge=0, le=1)]
Fraction = Annotated[StrictFloat, Field(ge=0, lt=1)]
Proportion = Annotated[StrictFloat, Field(gt=0, lt=1)]
Positive = Annotated[StrictFloat, Field(gt=0)]
NonNegative = Annotated[StrictFloat, Field(ge=0)]


def _model_source(name: str) -> str:
    # A network given in Python is described by its type in angle brackets.
    if name in MODELS or is_reference(name) or name.startswith("<"):
        return name
    file = name.endswith((".keras", ".onnx", ".npy")) or "/" in name
    hint = "; give a file as `file`" if file else suggestions.did_you_mean(name, MODELS)
    raise ValueError(f"expected one of {', '.join(_MODEL_SOURCES)}, found {name!r}{hint}")


_MODEL_SOURCES = (*MODELS, "package.module:function")
ModelSource = Annotated[
    str, AfterValidator(_model_source), WithJsonSchema({"enum": list(_MODEL_SOURCES)})
]


def _loss_source(name: str) -> str:
    if name in LOSSES or is_reference(name):
        return name
    hint = suggestions.did_you_mean(name, LOSSES)
    raise ValueError(f"expected one of {', '.join(_LOSS_SOURCES)}, found {name!r}{hint}")


_LOSS_SOURCES = (*LOSSES, "package.module:name")
LossSource = Annotated[
    str, AfterValidator(_loss_source), WithJsonSchema({"enum": list(_LOSS_SOURCES)})
]


def _plain(value: object) -> bool:
    """Whether a value is one that both TOML and JSON can express."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(inner) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _plain_values(settings: dict[str, Any]) -> dict[str, Any]:
    for name, value in settings.items():
        if not _plain(value):
            raise ValueError(
                "expected finite numbers, strings, booleans, and lists and tables of these, found "
                f"{name} = {value!r}"
            )
    return settings


STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    """The data set, its location and its split.

    Args:
        name: the data set; `folder` is any image folder or archive of one.
        path: its location; empty: the default locations.
        validation: fraction of the training images held out for validation, above 0 and below 0.5.
        split_seed: seed of the split into training and validation.
        size: (height, width) in pixels that images are resized to; None: no resizing.
        resize: how images of another aspect ratio get that size: `stretch`, the whole image, or
            `crop`, its central part; None: stretch.
        crop_fraction: with `crop`, how much of that part is kept in each direction, above 0, up
            to 1; None: 1.
        in_memory: whether images are decoded once and kept in memory, or stay in their files and
            are decoded when they are used; None: in memory if they take at most 1 GiB.
        workers: number of processes that decode and augment images ahead of the training;
            0: a thread of the training process; None: one for each processor, at most 8. The
            number changes no result.
        unlabeled: a folder of additional unlabeled images, for which the student is trained on
            teacher outputs alone; requires alpha = 1. None: no such images.
        transfer: names of the classes whose images student and baseline are trained on. The
            teacher is trained on all classes; validation and test contain all. None: all.

    Example:
        >>> Data(name="cifar10", size=(32, 32)).size
        (32, 32)
    """

    name: DataName
    path: str = ""
    validation: Annotated[StrictFloat, Field(gt=0, lt=0.5)] = 0.1
    split_seed: Seed = 0
    size: tuple[Pixels, Pixels] | None = None
    resize: Literal["stretch", "crop"] | None = None
    crop_fraction: Annotated[StrictFloat, Field(gt=0, le=1)] | None = None
    in_memory: StrictBool | None = None
    workers: Annotated[StrictInt, Field(ge=0, le=64)] | None = None
    unlabeled: str | None = None
    transfer: Annotated[tuple[str, ...], Field(min_length=1)] | None = None


def _increasing(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"expected the least and then the largest value, found {list(pair)}")
    return pair


Range = Annotated[tuple[Positive, Positive], AfterValidator(_increasing)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Views:
    """Augmentation of the training images, in this order: crop, policy, color, flips, shift,
    cutout (in the schedule), erasing, mixing.

    Args:
        flip: flip horizontally in every other epoch.
        shift: largest random shift in each direction, in pixels, 0 to 32.
        distinct: number of augmented views of an image that student and baseline reuse in turn;
            0: a new view each epoch, as always for the teacher.
        crop: `random-resized`: a random part of the image, resized to `data.size`; None: the image
            as in validation.
        crop_scale: the least and the largest area of that part, as fractions of the image's;
            None: [0.35, 1].
        crop_ratio: the least and the largest width / height of that part; None: [0.75, 1.333].
        flip_vertical: whether half of the views, drawn at random, are flipped vertically.
        policy: `randaugment`: some operations of equal magnitude; `trivialaugment`: one of random
            magnitude; None: none.
        policy_operations: `randaugment`: number of operations; None: 2.
        policy_magnitude: `randaugment`: magnitude, 0 to 30; None: 9.
        color_jitter: brightness, contrast and saturation are multiplied by random factors of 1
            minus to 1 plus this value; None: they are kept.
        hue: largest random shift of the hue, as a fraction of a turn, up to 0.5; None: none.
        erasing: probability that a random rectangle of a view is replaced by its mean color;
            None: 0.
        mixup: alpha of the Beta distribution of the weights with which two images and their labels
            are averaged; None: no mixup.
        cutmix: alpha of the Beta distribution of the area of an image that is replaced by another
            one's, the labels likewise; None: no CutMix. With `mixup`, each pair of images gets one
            of the two.

    Source:
        crop: arXiv 1409.4842, section 6. randaugment: arXiv 1909.13719. trivialaugment: arXiv
        2103.10158. erasing: arXiv 1708.04896. mixup: arXiv 1710.09412. cutmix: arXiv 1905.04899.

    Example:
        >>> Views(flip=False).shift
        2
        >>> Views(crop="random-resized", shift=0, policy="trivialaugment").crop_scale is None
        True
    """

    flip: StrictBool = True
    shift: Reach = 2
    distinct: Annotated[StrictInt, Field(ge=0)] = 0
    crop: Literal["random-resized"] | None = None
    crop_scale: Range | None = None
    crop_ratio: Range | None = None
    flip_vertical: StrictBool | None = None
    policy: Literal["randaugment", "trivialaugment"] | None = None
    policy_operations: Annotated[StrictInt, Field(ge=1, le=14)] | None = None
    policy_magnitude: Annotated[StrictInt, Field(ge=0, le=30)] | None = None
    color_jitter: NonNegative | None = None
    hue: Annotated[StrictFloat, Field(ge=0, le=0.5)] | None = None
    erasing: Unit | None = None
    mixup: Positive | None = None
    cutmix: Positive | None = None


def _with_their_views(views: Views) -> Views:
    """Refuse settings of a transform that is not chosen."""
    for name, owner, value in (
        ("crop_scale", "crop", "random-resized"),
        ("crop_ratio", "crop", "random-resized"),
        ("policy_operations", "policy", "randaugment"),
        ("policy_magnitude", "policy", "randaugment"),
    ):
        if getattr(views, name) is not None and getattr(views, owner) != value:
            raise ValueError(f'{name} requires {owner} = "{value}"')
    if views.crop_scale is not None and views.crop_scale[1] > 1:
        raise ValueError(
            f"crop_scale: expected fractions of the area, up to 1, found {list(views.crop_scale)}"
        )
    return views


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Network:
    """A model: one of this package, by name, or one from a file.

    Args:
        model: a network that the run trains: one of `MODELS`, or `package.module:function`, which
            returns an untrained Keras model; required unless `file` is set.
        file: used instead of `model`. Teacher: one that is trained already and used as it is: a
            `.keras` or `.onnx` file, a run folder, a `.npy` file of its logits, or
            `package.module:function`, which returns it; a list is an ensemble. Student: a `.keras`
            file whose weights it starts from, or as `model`.
        combine: how an ensemble is averaged: the mean of its `logits`, of its `probabilities`, or
            of the distillation `losses` with each member; None: logits.
        size: input (height, width) in pixels of a model that is not one of `MODELS`; None: that of
            the images.
        scale: divisor of the pixels (0 to 255); None: 1.
        mean: subtracted after scaling, one number per channel.
        std: divisor after that, one number per channel.

    Example:
        >>> Network(model="digits-teacher").file
        ''
        >>> Network(file="mine.onnx", size=(224, 224), scale=255).size
        (224, 224)
    """

    model: ModelSource | None = None
    file: str | tuple[str, ...] = ""
    combine: Literal["logits", "probabilities", "losses"] | None = None
    size: tuple[Pixels, Pixels] | None = None
    scale: Positive | None = None
    mean: tuple[StrictFloat, ...] | None = None
    std: tuple[Positive, ...] | None = None

    @property
    def own(self) -> str | None:
        """A network of the user's own that the run trains: `model`, if it is none of `MODELS`."""
        return None if self.file or self.model in MODELS else self.model


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Term:
    """One distillation loss, its settings and its weight.

    Args:
        name: the loss: on logits `kd`, `standardized-kd`, `dkd`, `nkd` or `dist`; on features
            `fitnet`, `attention-transfer`, `similarity-preserving`, `rkd` or `reviewkd`; or
            `package.module:name`, a class or function of your own that returns a distillation
            loss on logits.
        weight: factor of the loss, at least 0; None: its default: 100 for `fitnet`, 1000
            for `attention-transfer`, 3000 for `similarity-preserving`, 5 for `reviewkd`, 1 for the
            others.
        ramp: schedule of the weight: `linear` rises from 0 in the first steps, `cosine` falls to 0
            over all steps; None: constant.
        warmup: fraction of the steps in which `linear` rises, above 0, up to 1; None: 0.1.
        temperature: T of a loss on logits, above 0; None: the authors' value.
        beta: `dkd`: weight of the non-target classes; `dist`: of the rows; None: the authors'
            value.
        gamma: `nkd`: weight of the non-target classes; `dist`: of the columns; None: the authors'
            value.
        distance_weight: `rkd`: weight of the distances; None: the authors' value.
        angle_weight: `rkd`: weight of the angles; None: the authors' value.
        teacher_layer: the teacher's layer that a feature loss uses; None: chosen automatically.
        student_layer: the student's layer; None: chosen automatically.
        settings: keyword arguments of a loss of your own; None: none.

    Source:
        See the losses in `tutelage.losses`.

    Example:
        >>> Term(name="rkd", angle_weight=10).angle_weight
        10.0
    """

    name: LossSource = "kd"
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
    settings: Annotated[dict[str, Any], AfterValidator(_plain_values)] | None = None

    @property
    def own(self) -> bool:
        """Whether the loss is one of the user's own."""
        return self.name not in LOSSES


def _own_settings(term: Term) -> Term:
    for name, owners in SETTINGS.items():
        if (value := getattr(term, name)) is not None and term.name not in owners:
            hint = "; give arguments of a loss of your own in settings" if term.own else ""
            raise ValueError(
                f"{name} is for {', '.join(owners)}, found {name} = {value} with {term.name}{hint}"
            )
    if term.settings is not None and not term.own:
        raise ValueError(
            f"settings is for a loss of your own, package.module:name, found it with {term.name}; "
            "its settings are keys of their own"
        )
    if (term.teacher_layer is None) != (term.student_layer is None):
        raise ValueError("expected both teacher_layer and student_layer, found only one")
    if term.warmup is not None and term.ramp != "linear":
        raise ValueError('warmup requires ramp = "linear"')
    return term


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Loss(Term):
    """The loss the student minimizes: `alpha * sum(weight * loss) + (1 - alpha) * hard_loss`.

    Args:
        alpha: weight of the distillation losses, 0 to 1.
        more: additional losses, each with its settings and weight.
        generations: number of students trained in sequence, each from its initial weights with the
            previous one as its teacher; the run keeps the last. None: one.

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
        """All losses, the main one first."""
        return (self, *(self.more or ()))


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


def _known(network: Network) -> Network:
    if network.model is None and not network.file:
        raise ValueError(f"expected model, one of {', '.join(MODELS)}, or file, found neither")
    for name in ("size", "scale", "mean", "std"):
        if (value := getattr(network, name)) is not None and not (network.file or network.own):
            raise ValueError(
                f"{name} applies only to a model of your own, from a file or a function, found "
                f"{name} = {value} with model {network.model}"
            )
    if network.combine is not None and isinstance(network.file, str):
        raise ValueError("combine requires a list of files, found one file or none")
    return network


def _alone(network: Network) -> Network:
    if not isinstance(network.file, str):
        raise ValueError(f"expected one file, found {network.file}")
    return network


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"expected each name once, found {list(names)}")
    return names


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """The complete definition of an experiment.

    Args:
        name: stem of the file it was read from; not a key of the file.
        seed: seed for initial weights, shuffling and augmentation, 0 to 2**31 - 1.
        track: where recipe, epochs and results of a run are logged as well: any of `tensorboard`,
            `mlflow` and `wandb` (Weights & Biases), set up by their environment variables. It
            changes no result: a run is the same with and without it. None: nowhere.
        data: the data set.
        views: augmentation.
        teacher: the large model.
        student: the small model.
        loss: the loss the student minimizes.
        schedule: training settings.

    Example:
        >>> from tutelage import recipe
        >>> recipe.load("digits").student.model
        'digits-student'
    """

    name: str = "recipe"
    seed: Seed = 0
    track: Annotated[tuple[TrackerName, ...], AfterValidator(_once)] | None = None
    data: Data
    views: Annotated[Views, AfterValidator(_with_their_views)]
    teacher: Annotated[Network, AfterValidator(_known)]
    student: Annotated[Network, AfterValidator(_known), AfterValidator(_alone)]
    loss: Annotated[Loss, AfterValidator(_own_settings)]
    schedule: Schedules
