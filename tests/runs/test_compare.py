"""Runs compared: against hand-made figures and brute force, then what is refused."""

from __future__ import annotations

import dataclasses
import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tutelage import recipe
from tutelage.errors import RunError
from tutelage.evaluation.statistics import Difference, mcnemar, paired
from tutelage.runs.compare import compare
from tutelage.runs.run_reader import Record

# Student's t at 97.5 %, from printed tables.
TABLE = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262}


def test_interval_is_that_of_student_s_tables() -> None:
    told = paired([0.90, 0.91, 0.95], [0.89, 0.89, 0.92])
    assert told.mean == pytest.approx(0.02)
    assert told.std == pytest.approx(0.01)
    half = TABLE[2] * 0.01 / math.sqrt(3)
    assert told.low == pytest.approx(0.02 - half, abs=1e-5)
    assert told.high == pytest.approx(0.02 + half, abs=1e-5)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_interval_and_p_are_those_of_scipy_s_paired_test(count: int) -> None:
    one, other = np.random.default_rng(count).normal(0.8, 0.02, (2, count))
    told, reference = paired(one, other), stats.ttest_rel(one, other)
    low, high = reference.confidence_interval(0.95)
    assert (told.low, told.high) == pytest.approx((low, high))
    assert told.p == pytest.approx(reference.pvalue)
    if count - 1 in TABLE:
        assert told.std is not None
        half = TABLE[count - 1] * told.std / math.sqrt(count)
        assert told.high == pytest.approx(told.mean + half, rel=1e-3)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = [
        told.low <= 0.01 <= told.high
        for told in (
            paired(random.normal(0.81, 0.02, 5), random.normal(0.80, 0.02, 5)) for _ in range(2000)
        )
        if told.low is not None and told.high is not None
    ]
    assert len(held) == 2000
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)


def test_seeds_that_agree_have_an_interval_of_no_width() -> None:
    told = paired([0.5, 0.5], [0.25, 0.25])
    assert (told.low, told.high, told.p) == (0.25, 0.25, 0.0)
    assert paired([0.5, 0.5], [0.5, 0.5]).p == 1.0
    assert paired([0.5], [0.25]) == Difference(1, 0.25)
    # Of accuracies on 48 images, half an image is the least spread.
    told = paired([0.5, 0.5], [0.25, 0.25], 48)
    half = TABLE[1] * 0.5 / 48 / math.sqrt(2)
    assert told.std == 0
    assert (told.low, told.high) == pytest.approx((0.25 - half, 0.25 + half), rel=1e-4)
    assert told.p == pytest.approx(2 * stats.t.sf(0.25 / (0.5 / 48 / math.sqrt(2)), 1))
    assert paired([0.5, 0.5], [0.5, 0.5], 48).p == 1.0


def test_mcnemar_counts_every_way_the_coins_may_fall() -> None:
    one = np.array([1, 1, 1, 1, 1, 0, 1, 0, 1], bool)
    other = np.array([0, 0, 0, 0, 0, 1, 1, 0, 1], bool)
    falls = [sum(coins) for coins in product((0, 1), repeat=6)]
    expected = np.mean([abs(heads - 3) >= 2 for heads in falls])  # 5 to 1, or further apart
    assert mcnemar(one, other) == {"first": 5, "second": 1, "p": pytest.approx(expected)}
    assert mcnemar(other, one)["p"] == pytest.approx(expected)
    assert mcnemar(one, one) == {"first": 0, "second": 0, "p": 1.0}


def record(seed: int, student: int, baseline: int, **changed: Any) -> Record:
    """A run on 10 images, of which so many are right."""
    told = recipe.load("digits", {"seed": seed} | changed)
    labels = np.zeros(10, np.int64)
    right = {"teacher": 9, "baseline": baseline, "student": student}
    logits = {
        name: np.where(np.arange(10)[:, None] < count, [[1.0, 0.0]], [[0.0, 1.0]])
        for name, count in right.items()
    }
    models = {
        name: {"accuracy": count / 10, "nll": 1 - count / 10} for name, count in right.items()
    }
    data = {"name": "made up", "test": 10, "fingerprint": "f"}
    return Record(
        folder=Path(f"run-{seed}-{student}"),
        settings=recipe.to_dict(told),
        results={"name": "digits", "models": models, "data": data},
        logits=logits,
        labels=labels,
    )


def test_seeds_of_one_recipe_are_one_group() -> None:
    told = compare([record(1, 8, 6), record(0, 7, 6), record(2, 9, 6)])
    (group,) = told["groups"]
    assert told["test"] == 10
    assert (group["name"], group["seeds"]) == ("digits", [0, 1, 2])
    assert group["models"]["student"]["accuracy"] == pytest.approx({"mean": 0.8, "std": 0.1})
    assert group["models"]["student"]["nll"]["mean"] == pytest.approx(0.2)
    assert group["worth"]["mean"] == pytest.approx(0.2)
    assert group["short"]["mean"] == pytest.approx(-0.1)
    assert [(test["first"], test["second"]) for test in group["mcnemar"]] == [
        (1, 0),
        (2, 0),
        (3, 0),
    ]
    assert "against" not in group


def test_a_run_that_is_tracked_is_of_the_group_of_those_that_are_not() -> None:
    (group,) = compare([record(0, 7, 6), record(1, 8, 6, track=["mlflow"])])["groups"]
    assert group["seeds"] == [0, 1]


def test_recipes_are_told_apart_by_what_differs_and_paired_by_seed() -> None:
    changed = {"loss.name": "dkd", "loss.alpha": 0.5}
    first = [record(seed, 7, 6) for seed in range(3)]
    second = [record(seed, 8, 6, **changed) for seed in (1, 2, 3)]
    one, other = compare([*first, *second])["groups"]
    assert one["name"] == "loss.alpha=0.9, loss.name=kd, loss.temperature=2"
    assert other["name"] == "loss.alpha=0.5, loss.name=dkd"
    assert other["against"]["count"] == 2
    assert other["against"]["mean"] == pytest.approx(0.1)
    alone = compare([record(0, 7, 6), record(5, 8, 6, **changed)])["groups"][1]
    assert alone["against"] is None


def test_runs_computed_by_other_kernels_are_named() -> None:
    def computed(seed: int, *compiled: str) -> Record:
        one = record(seed, 90, 80)
        environment = {"compiled": list(compiled), "versions": {"torch": "2"}}
        return dataclasses.replace(one, results=one.results | {"environment": environment})

    assert compare([computed(0, "winograd"), computed(1, "winograd")])["mixed"] == []
    # Version 0.1.0 had another name for the same kernel.
    assert compare([computed(0, "fusion"), computed(1, "fused_batch_norm")])["mixed"] == []
    mixed = compare([computed(0, "fused_batch_norm"), computed(1)])["mixed"]
    assert len(mixed) == 2
    assert "fused_batch_norm" in mixed[0]


def test_where_the_data_lies_makes_no_other_recipe() -> None:
    elsewhere = record(1, 8, 6, **{"data.path": "elsewhere"})
    assert len(compare([record(0, 7, 6), elsewhere])["groups"]) == 1


def test_teacher_of_unknown_accuracy_is_left_out() -> None:
    one = record(0, 7, 6)
    del one.results["models"]["teacher"]
    (group,) = compare([one])["groups"]
    assert "short" not in group
    assert group["conclusion"] == "not known"
    assert group["verdict"].startswith("Not known: with one seed")
    assert "10.00 points (1 of 10 images) above the baseline" in group["verdict"]
    assert "student only: 1, by the baseline only: 0" in group["verdict"]


def test_what_can_not_be_compared_is_refused() -> None:
    with pytest.raises(RunError, match="found none"):
        compare([])
    with pytest.raises(RunError, match="same recipe"):
        compare([record(0, 7, 6), record(0, 8, 6)])
    other = record(1, 7, 6)
    other.results["data"]["fingerprint"] = "g"
    with pytest.raises(RunError, match="differ in data"):
        compare([record(0, 7, 6), other])
    unfinished = dataclasses.replace(record(1, 7, 6), missing=("results.json is missing",))
    with pytest.raises(RunError, match=r"results\.json"):
        compare([record(0, 7, 6), unfinished])
    with pytest.raises(RunError, match="one seed"):
        paired([], [])
    with pytest.raises(RunError, match="same images"):
        mcnemar([True], [True, False])
