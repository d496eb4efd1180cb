"""The weight of the distillation losses is chosen by the teacher's and the baseline's accuracy."""

from dataclasses import replace

import numpy as np
import pytest

import tutelage
from tutelage import recipe as recipes
from tutelage.data import datasets
from tutelage.errors import RecipeError
from tutelage.experiment import automatic_alpha
from tutelage.sweeps import search_space

SHORT = {
    "views.flip": False,
    "views.distinct": 1,
    "schedule.teacher.epochs": 3,
    "schedule.student.epochs": 2,
    "schedule.precision": "float32",
}


def distilled(out, **settings):
    return tutelage.distill(
        teacher="digits-teacher",
        student="digits-student",
        data="digits",
        train_teacher=True,
        settings=SHORT | settings,
        out=out,
    )


def test_the_formula_and_its_bounds():
    errors = np.linspace(0, 1, 21)
    for baseline in errors[1:]:
        found = [automatic_alpha.from_accuracies(1 - e, 1 - baseline) for e in errors]
        assert found == sorted(found, reverse=True)  # the fewer errors, the larger
        assert min(found) >= 0.3
        assert max(found) == 0.9
    assert automatic_alpha.from_accuracies(0.6, 0.6) == 0.3
    assert automatic_alpha.from_accuracies(1.0, 1.0) == 0.9


def test_a_run_uses_it_and_records_it_and_resumes_with_it(tmp_path):
    auto = distilled(tmp_path / "auto")
    held_out = auto.results["validation"]
    expected = automatic_alpha.from_accuracies(
        held_out["teacher"]["accuracy"], held_out["baseline"]["accuracy"]
    )
    assert auto.results["alpha"] == expected
    assert auto.results["recipe"]["loss"]["alpha"] == "auto"
    number = distilled(tmp_path / "number", **{"loss.alpha": expected})
    for one, other in zip(auto.student.weights, number.student.weights, strict=True):
        assert np.array_equal(one.numpy(), other.numpy())
    assert "alpha" not in number.results


def test_the_student_depends_on_the_baseline_only_if_the_weight_does():
    from tutelage.experiment.prepare import prepare

    def student(**settings):
        recipe = recipes.load("digits", {"loss.alpha": "auto"} | settings)
        return prepare(recipe, data=datasets.load("digits")).keys()["student"]

    assert student() != student(**{"loss.alpha": 0.9})
    assert student() == student()


@pytest.mark.parametrize("value", ["Auto", "0.5", True, 1.5, -0.1, [0.5]])
def test_other_values_are_refused(value):
    with pytest.raises(RecipeError, match=r"loss\.alpha"):
        recipes.load("digits", {"loss.alpha": value})


def test_a_sweep_needs_numbers():
    recipe = recipes.load("digits")
    recipe = replace(recipe, loss=replace(recipe.loss, alpha="auto"))
    with pytest.raises(RecipeError, match="--alpha"):
        search_space.plan(recipe)
