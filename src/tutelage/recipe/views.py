"""The section `views` of a recipe."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt
from pydantic.dataclasses import dataclass

from tutelage.recipe.values import STRICT, NonNegative, Positive, Reach, Unit


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


def checked(views: Views) -> Views:
    """Raise ValueError if there are settings of a transform that is not chosen."""
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
