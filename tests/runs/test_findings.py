"""What a sweep has found, against figures computed by hand and by SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tutelage.errors import RunError
from tutelage.runs import findings

BASELINE = ("baseline", 0.0, None)


def rows(table: dict[tuple[Any, ...], list[float]], **changed: Any) -> list[dict[str, Any]]:
    """Rows of a table of accuracies by seed; NLL is one less the accuracy unless told."""
    return [
        {
            "method": method,
            "alpha": alpha,
            "temperature": degree,
            "seed": seed,
            "accuracy": accuracy,
            "nll": 1 - accuracy,
            "state": "complete",
        }
        | changed
        for (method, alpha, degree), accuracies in table.items()
        for seed, accuracy in enumerate(accuracies)
    ]


TABLE = {
    BASELINE: [0.900, 0.910, 0.905],
    ("kd", 0.5, 1.0): [0.910, 0.915, 0.912],
    ("kd", 0.5, 4.0): [0.921, 0.930, 0.925],
    ("kd", 0.9, 1.0): [0.930, 0.935, 0.934],  # the best
    ("kd", 0.9, 4.0): [0.929, 0.937, 0.932],
}


def test_best_setting_and_its_interval_are_those_of_a_paired_t_test() -> None:
    found = findings.find(rows(TABLE))
    best, alone = np.array(TABLE["kd", 0.9, 1.0]), np.array(TABLE[BASELINE])
    assert [found["best"][axis] for axis in ("method", "alpha", "temperature")] == ["kd", 0.9, 1.0]
    assert found["best"]["accuracy"] == pytest.approx(best.mean())
    assert found["best"]["std"] == pytest.approx(best.std(ddof=1))
    assert found["best"]["nll"] == pytest.approx(1 - best.mean())
    test = stats.ttest_rel(best, alone)
    interval = test.confidence_interval(0.95)
    gain = found["gain"]
    assert gain["mean"] == pytest.approx((best - alone).mean())
    assert (gain["low"], gain["high"]) == pytest.approx((interval.low, interval.high))
    assert gain["p"] == pytest.approx(test.pvalue)
    assert (found["seeds"], found["dropped"]) == ([0, 1, 2], 0)


def test_settings_are_ranked_and_those_that_can_not_be_told_from_the_best_are_marked() -> None:
    found = findings.find(rows(TABLE))
    names = [(one["alpha"], one["temperature"]) for one in found["settings"]]
    assert names == [(0.9, 1.0), (0.9, 4.0), (0.5, 4.0), (0.5, 1.0)]
    best = TABLE["kd", 0.9, 1.0]
    for one in found["settings"][1:]:
        theirs = TABLE["kd", one["alpha"], one["temperature"]]
        high = stats.ttest_rel(theirs, best).confidence_interval(0.95).high
        assert one["level"] == (high >= 0)
    assert [one["level"] for one in found["settings"]] == [True, True, False, False]


def test_ties_go_to_the_lower_nll() -> None:
    table = {BASELINE: [0.9, 0.9], ("kd", 0.1, 1.0): [0.93, 0.95], ("kd", 0.2, 1.0): [0.95, 0.93]}
    told = rows(table)
    for row in told:
        row["nll"] = 0.3 if row["alpha"] == 0.1 else 0.2
    assert findings.find(told)["best"]["alpha"] == 0.2
    assert findings.find(told)["settings"][1]["level"]


def test_what_the_usual_alpha_and_temperature_give_is_the_best_with_them() -> None:
    found = findings.find(rows(TABLE))
    assert found["alpha"]["alpha"] == 0.9  # the nearest here to 0.8
    assert found["temperature"]["temperature"] == 4.0
    assert found["temperature"]["alpha"] == 0.9
    cost = np.mean(TABLE["kd", 0.9, 4.0]) - np.mean(TABLE["kd", 0.9, 1.0])
    assert found["temperature"]["short"]["mean"] == pytest.approx(cost)
    said = "\n".join(findings.say(found))
    assert "Best with alpha = 0.9, the closest to the common 0.8: " in said
    assert ", the best setting overall." in said
    assert "Best with T = 4: 93.27 ± 0.40 %, kd, alpha 0.9, T 4; " in said
    assert f"difference from the best {100 * cost:+.2f} ± " in said


def test_the_nearest_temperature_is_so_by_its_ratio() -> None:
    table = {
        BASELINE: [0.9],
        ("kd", 0.5, 1.0): [0.95],
        ("kd", 0.5, 2.1): [0.94],
        ("kd", 0.5, 7.0): [0.93],
    }
    assert findings.find(rows(table))["temperature"]["temperature"] == 7.0  # 7/4 < 4/2.1


def test_axes_that_were_not_varied_are_not_spoken_of() -> None:
    table = {BASELINE: [0.9, 0.91], ("kd", 0.8, 4.0): [0.93, 0.94]}
    found = findings.find(rows(table))
    assert (found["alpha"], found["temperature"]) == (None, None)
    said = "\n".join(findings.say(found))
    assert "Best with" not in said
    assert "optimistic" not in said  # nothing was selected


def first(table: dict[tuple[Any, ...], list[float]], images: int = 1000) -> str:
    return findings.say(findings.find(rows(table), images))[0]


def test_whether_the_teacher_helped_is_said_first() -> None:
    below = {BASELINE: [0.95, 0.94, 0.96], ("kd", 0.5, 1.0): [0.93, 0.94, 0.95]}
    told = findings.say(findings.find(rows(below), 1000))
    assert told[0].startswith("Not significant on the validation images: over 3 seeds the best")
    assert "1.00 points (10 of 1,000 images) below the baseline" in told[0]
    assert "No setting has a higher accuracy than the baseline." in told
    hurt = {BASELINE: [0.95, 0.94, 0.96], ("kd", 0.5, 1.0): [0.92, 0.91, 0.93]}
    assert first(hurt).startswith("The teacher hurt on the validation images: over 3 seeds")
    level = {BASELINE: [0.90, 0.91, 0.92], ("kd", 0.5, 1.0): [0.93, 0.90, 0.94]}
    assert first(level).startswith("Not significant on the validation images")
    assert "includes 0" in first(level)
    clear = {BASELINE: [0.90, 0.91, 0.92], ("kd", 0.5, 1.0): [0.93, 0.94, 0.951]}
    assert first(clear).startswith("The teacher helped on the validation images: over 3 seeds")
    assert "includes 0" not in first(clear)


def test_the_best_of_many_settings_needs_a_lower_p() -> None:
    clear = {BASELINE: [0.90, 0.91, 0.92], ("kd", 0.5, 1.0): [0.91, 0.922, 0.934]}
    others = {("kd", 0.5, 1.0 + i): [0.8, 0.8, 0.8] for i in range(1, 10)}
    assert first(clear).startswith("The teacher helped")
    told = first(clear | others)
    assert told.startswith("Not significant")
    assert "after correction for 10 settings" in told


def test_as_good_as_the_baseline_in_another_order_of_seeds_is_no_help() -> None:
    # 0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last bit.
    table = {BASELINE: [0.1, 0.2, 0.3], ("kd", 0.5, 1.0): [0.3, 0.2, 0.1]}
    assert "as accurate as the baseline" in first(table)


def test_one_seed_tells_nothing_apart_and_says_so() -> None:
    found = findings.find(rows({key: values[:1] for key, values in TABLE.items()}), 200)
    assert found["best"]["std"] is None
    assert not any(one["level"] for one in found["settings"])
    begin, *rest = findings.say(found)
    assert begin.startswith("Not known on the validation images: with one seed the best setting")
    assert "3.00 points (6 of 200 images) above the baseline" in begin
    said = "\n".join(rest)
    assert "--seeds 3" in said
    assert "ignificant" not in said


@pytest.mark.parametrize("state", ["pruned", "failed"])
def test_settings_without_all_their_students_are_not_ranked(state: str) -> None:
    told = rows(TABLE)
    for row in told:
        if row["alpha"] == 0.9 and row["temperature"] == 1.0 and row["seed"] == 1:
            row |= {"state": state, "accuracy": None, "nll": None}
    absent = [row for row in told if (row["alpha"], row["temperature"]) != (0.5, 1.0)]
    absent += [row for row in told if (row["alpha"], row["temperature"]) == (0.5, 1.0)][:2]
    found = findings.find(absent)
    assert found["best"]["temperature"] == 4.0
    assert (found["dropped"], len(found["settings"])) == (2, 2)
    assert "Not ranked because a seed was pruned or failed: 2 settings." in findings.say(found)


def test_nothing_to_rank_is_refused() -> None:
    with pytest.raises(RunError, match="a baseline"):
        findings.find(rows({BASELINE: [0.9]}))
    with pytest.raises(RunError, match="a baseline"):
        findings.find(rows(TABLE, state="pruned"))
