"""Models named by `package.module:function`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

from tests.models.example_models import (
    FUNCTION,
    SEEN,
    flat,
    logits_of,
    net,
    refused,
    student_of,
    teacher_of,
)
from tutelage.errors import (
    ModelError,
    RecipeError,
)


def test_functions_of_the_current_folder_are_called(
    code: Callable[[str], str], tmp_path: Path
) -> None:
    name = code(FUNCTION)
    (tmp_path / "made_helper.py").write_text("SEED = 0")
    path = list(sys.path)
    teacher = teacher_of(f"{name}:module", preprocessing=SEEN)
    np.testing.assert_array_equal(
        logits_of(teacher), logits_of(teacher_of(flat(), preprocessing=SEEN))
    )
    assert teacher.name == f"{name}:module"
    assert teacher_of(f"{name}:keras_model", preprocessing=SEEN).model is not None
    one, same, other = (student_of(f"{name}:keras_model", seed=seed) for seed in (3, 3, 4))
    keras.utils.set_random_seed(3)
    expected = net(layers.Dense(3)).get_weights()
    for ours, again, others, weights in zip(
        *(m.get_weights() for m in (one, same, other)), expected, strict=True
    ):
        np.testing.assert_array_equal(ours, weights)
        np.testing.assert_array_equal(ours, again)
        assert weights.ndim == 1 or (ours != others).any()
    assert sys.path == path


def test_functions_that_give_no_model_are_refused(code: Callable[[str], str]) -> None:
    torn = code("def f(:")
    name = code(
        "def broken():\n    raise OSError('no\\nweights')\ndef number():\n    return 3\n"
        "def needy(x):\n    return x\nVALUE = 1\n"
        "def module():\n    import torch\n    return torch.nn.Linear(64, 3)"
    )
    refused(RecipeError, "no_such_module: ModuleNotFoundError", "no_such_module:f")
    refused(RecipeError, f"{torn}: SyntaxError", f"{torn}:f")
    refused(RecipeError, "absent", f"{name}:absent")
    refused(RecipeError, "VALUE", f"{name}:VALUE")
    refused(ModelError, "raised OSError", f"{name}:broken")
    refused(ModelError, "raised TypeError", f"{name}:needy")
    refused(ModelError, "returned int", f"{name}:number")
    refused(RecipeError, "PyTorch module", f"{name}:module", make=student_of)
