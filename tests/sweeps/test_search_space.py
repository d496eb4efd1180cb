"""What a sweep tries: its options read, its students counted, and what makes no sense refused."""

from __future__ import annotations

import pytest

from tutelage import recipe
from tutelage.errors import RecipeError
from tutelage.sweeps import search_space
from tutelage.sweeps.search_space import Setting, Span, TrialSpec

DIGITS = recipe.load("digits")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0:1:0.1", (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)),
        ("0.05:0.2:0.05", (0.05, 0.1, 0.15, 0.2)),
        ("1:8", Span(1.0, 8.0)),
        ("1,2,4,8", (1.0, 2.0, 4.0, 8.0)),
        (" 4 , 2,4", (4.0, 2.0)),
        ("0.3", (0.3,)),
        (0.3, (0.3,)),
        (2, (2.0,)),
        ([0.1, 0.3], (0.1, 0.3)),
        (Span(0.0, 1.0), Span(0.0, 1.0)),
        ("1e-1:3e-1:1e-1", (0.1, 0.2, 0.3)),
    ],
)
def test_values_are_read_to_the_last_digit(
    given: search_space.AxisValues, expected: search_space.Axis
) -> None:
    assert search_space.values(given, "alpha") == expected  # 0.3 and not 0.30000000000000004


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("", "found ''"),
        ("much", "found 'much'"),
        ("1,,2", "found '1,,2'"),
        ("nan", "found 'nan'"),
        ("inf", "found 'inf'"),
        ("0:1:0.1:2", "a range such as 0:1:0.1"),
        ("0:1:0.3", "a step that divides 0 to 1 .*, found 0.3"),
        ("0:1:0", "found 0"),
        ("0:1:-0.1", "found -0.1"),
        ("1:0:0.1", "an ascending range"),
        ("1:1", "an ascending range"),
        ("0:1:1e-9", "at most 1000 values"),
    ],
)
def test_what_is_no_number_list_or_range_is_refused(given: str, names: str) -> None:
    with pytest.raises(RecipeError, match=f"alpha: expected .*{names}"):
        search_space.values(given, "alpha")


def test_a_grid_is_every_combination_and_one_baseline_a_seed() -> None:
    told = search_space.plan(DIGITS, alpha="0:1:0.5", temperature="1,4", method="kd,dkd", seeds=2)
    specs = told.specs(DIGITS)
    settings = [
        Setting(method, alpha, degree)
        for method in ("kd", "dkd")
        for degree in (1.0, 4.0)
        for alpha in (0.5, 1.0)
    ]
    # Whatever the method and the temperature, alpha = 0 is the same student.
    assert specs == [TrialSpec(one, seed) for seed in (0, 1) for one in (None, *settings)]
    assert told.students(DIGITS) == len(specs) == 2 * (1 + 2 * 2 * 2)


def test_the_sweep_of_the_readme_is_forty_students_and_a_baseline() -> None:
    assert search_space.plan(DIGITS, alpha="0:1:0.1", temperature="1,2,4,8").students(DIGITS) == 41


def test_what_is_not_given_is_the_recipe_s() -> None:
    told = search_space.plan(DIGITS)
    assert told.settings(DIGITS) == [Setting("kd", 0.9, 2.0)]
    seeded = recipe.load("digits", {"seed": 7})
    assert search_space.plan(seeded, seeds=3).seeds == (7, 8, 9)
    # Another method has no use for the recipe's temperature of its own.
    both = search_space.plan(DIGITS, method=["kd", "fitnet"], alpha=0.5)
    assert both.settings(DIGITS) == [Setting("kd", 0.5, 2.0), Setting("fitnet", 0.5, None)]


def test_a_setting_changes_its_keys_alone_and_another_method_drops_the_other_s_own() -> None:
    base = recipe.load("digits", {"loss.weight": 2.0, "loss.more": [{"name": "rkd"}]}).loss
    kept = Setting("kd", 0.3, 8.0).loss(base)
    assert (kept.alpha, kept.temperature, kept.weight, kept.more) == (0.3, 8.0, 2.0, base.more)
    other = Setting("dkd", 0.3, None).loss(base)
    assert (other.name, other.alpha) == ("dkd", 0.3)
    assert (other.temperature, other.weight, other.more) == (None, None, base.more)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"alpha": "0:1.5:0.5"}, "alpha: expected numbers from 0 to 1, found 1.5"),
        ({"alpha": "-0.1:1"}, "alpha: expected numbers from 0 to 1, found -0.1"),
        ({"alpha": 0}, "0 is the baseline"),
        ({"temperature": "0,1"}, "temperature: expected numbers above 0, found 0"),
        ({"method": "kd,kdd"}, "found 'kdd'; did you mean kd"),
        ({"method": "a:b", "temperature": "1,2"}, "found a:b"),
        ({"method": ""}, "method: expected some of kd"),
        ({"method": "kd,fitnet", "temperature": 2}, "methods that have one, found fitnet"),
        ({"seeds": 0}, "seeds: expected 1 to 2147483648"),
        ({"seeds": 2**31 + 1}, "seeds: expected 1 to 2147483648"),
        ({"search": "best"}, "search: expected one of grid, random, guided"),
        ({"trials": 5}, "trials: expected only with --search random or guided"),
        ({"search": "random"}, "trials: expected the number"),
        ({"search": "guided", "trials": 0}, "expected the number of settings to try, found 0"),
        ({"alpha": "0:1"}, "alpha: expected a step in a grid, such as 0:1:0.1"),
        ({"temperature": "1:8"}, "temperature: expected a step in a grid"),
    ],
)
def test_plans_that_make_no_sense_are_refused(given: dict[str, object], names: str) -> None:
    with pytest.raises(RecipeError, match=names):
        search_space.plan(DIGITS, **given)  # type: ignore[arg-type]


def test_pruning_needs_an_epoch_to_prune_after() -> None:
    short = recipe.load("digits", {"schedule.student.epochs": 1})
    with pytest.raises(RecipeError, match=r"prune: .* 2 epochs"):
        search_space.plan(short, prune=True)


def test_early_stopping_of_the_student_is_refused() -> None:
    search_space.plan(recipe.load("digits", {"schedule.teacher.early_stopping": 3}))
    with pytest.raises(RecipeError, match=r"schedule\.student\.early_stopping: .* 3;"):
        search_space.plan(recipe.load("digits", {"schedule.student.early_stopping": 3}))


def test_trackers_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"track: .*'mlflow'"):
        search_space.plan(recipe.load("digits", {"track": ["mlflow"]}))
    search_space.plan(recipe.load("digits", {"track": []}))


def test_generations_are_refused() -> None:
    born_again = recipe.load("digits", {"loss.generations": 2})
    with pytest.raises(RecipeError, match=r"generations: .* 2"):
        search_space.plan(born_again)
