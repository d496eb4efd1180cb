"""A recipe: its sections, each defined in a file of its own."""

from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic.dataclasses import dataclass

from tutelage.recipe import network
from tutelage.recipe.data import Data
from tutelage.recipe.loss import Loss, own_settings
from tutelage.recipe.network import Network
from tutelage.recipe.schedule import Schedules
from tutelage.recipe.values import STRICT, Seed
from tutelage.recipe.views import Views, checked

TrackerName = Literal["tensorboard", "mlflow", "wandb"]


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
    views: Annotated[Views, AfterValidator(checked)]
    teacher: Annotated[Network, AfterValidator(network.known)]
    student: Annotated[Network, AfterValidator(network.known), AfterValidator(network.alone)]
    loss: Annotated[Loss, AfterValidator(own_settings)]
    schedule: Schedules
