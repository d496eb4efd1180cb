"""The section `data` of a recipe."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt
from pydantic.dataclasses import dataclass

from tutelage.recipe.values import STRICT, Pixels, Seed

DataName = Literal["digits", "mnist", "cifar10", "folder"]


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
        skip_damaged: whether images that can't be read are left out, with a note that counts them;
            None: they are refused.
        unlabeled: a folder of additional unlabeled images, for which the student is trained on
            teacher outputs alone; requires alpha = 1, which `auto` then is. None: no such images.
        labels: fraction of the training labels that are used, of each class, above 0 and below 1;
            the other training images are unlabeled ones, and alpha is 1. Teacher and baseline see
            the labeled images as often as the student sees all. None: all labels are used.
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
    skip_damaged: StrictBool | None = None
    unlabeled: str | None = None
    labels: Annotated[StrictFloat, Field(gt=0, lt=1)] | None = None
    transfer: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
