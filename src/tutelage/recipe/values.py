"""Types of the values of recipes, and what all sections have in common."""

from typing import Annotated

from pydantic import ConfigDict, Field, StrictFloat, StrictInt

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

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
