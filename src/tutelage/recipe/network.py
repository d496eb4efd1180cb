"""The sections `teacher` and `student` of a recipe."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, StrictFloat, WithJsonSchema
from pydantic.dataclasses import dataclass

from tutelage.recipe import suggestions
from tutelage.recipe.reference import is_reference
from tutelage.recipe.values import STRICT, Pixels, Positive

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


def known(network: Network) -> Network:
    """Raise ValueError if a section names no model, or has settings that don't apply to it."""
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


def alone(network: Network) -> Network:
    """Raise ValueError if a section names several files, an ensemble."""
    if not isinstance(network.file, str):
        raise ValueError(f"expected one file, found {network.file}")
    return network
