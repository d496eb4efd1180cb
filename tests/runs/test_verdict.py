"""Verdicts: their words against the statistics, over the whole space of statistics."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
from scipy import stats

from tutelage.evaluation.statistics import Difference, paired
from tutelage.runs.verdict import Evidence, Verdict, judge

IMAGES = (48, 360, 10_000)


def discordant(first: int, second: int) -> dict[str, float]:
    """McNemar's exact test, from SciPy."""
    count = first + second
    p = float(stats.binomtest(first, count).pvalue) if count else 1.0
    return {"first": first, "second": second, "p": p}


def said(
    pairs: list[tuple[int, int]], images: int, teacher: tuple[int, int] | None, chance: float
) -> tuple[Evidence, Evidence | None, Verdict]:
    """The verdict where student and baseline alone are right on `pairs` of images, by seed."""
    bottom = images // 2
    worse = [bottom / images for _ in pairs]
    better = [(bottom + one - other) / images for one, other in pairs]
    gain = Evidence(paired(better, worse, images), [discordant(*pair) for pair in pairs], images)
    accuracies = {"baseline": float(np.mean(worse)), "student": float(np.mean(better))}
    lead = None
    if teacher is not None:
        one, other = teacher
        best = [accuracy - (one - other) / images for accuracy in better]
        tests = [discordant(one, other) for _ in pairs]
        lead = Evidence(paired(better, best, images), tests, images)
        accuracies["teacher"] = float(np.mean(best))
    return gain, lead, judge(gain, accuracies, lead, chance)


# Images that only the student, and only the baseline, has right: significant either way or not.
PAIRS = ((0, 0), (2, 0), (3, 1), (0, 2), (12, 0), (0, 12), (15, 3), (6, 5))
SEEDS = [
    *([pair] for pair in PAIRS),
    *([one, other] for one, other in product(PAIRS, PAIRS)),
    *([one, other, one] for one, other in product(PAIRS, PAIRS)),
    *([pair] * 5 for pair in PAIRS),
]
TEACHERS = (None, (0, 0), (1, 0), (0, 1), (12, 0), (0, 12), (8, 7))


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_words_agree_with_the_statistics_everywhere(images: int, chance: float) -> None:
    for pairs, teacher in product(SEEDS, TEACHERS):
        gain, lead, verdict = said(pairs, images, teacher, chance)
        check(gain, lead, verdict, images)
        if teacher is not None:
            correct = [images // 2 + a - b - (teacher[0] - teacher[1]) for a, b in pairs]
            if sum(correct) % len(correct):
                continue  # no whole number of images
            test = stats.binomtest(sum(correct) // len(correct), images, chance, "greater")
            lost = re.search(r"(images\): |, )teacher \(", verdict.text)
            assert bool(lost) == (test.pvalue >= 0.05), verdict.text


def check(gain: Evidence, lead: Evidence | None, verdict: Verdict, images: int) -> None:
    text, difference = verdict.text, gain.difference
    mean, count = difference.mean, difference.count
    tests = gain.tests
    significant = all(test["p"] < 0.05 for test in tests) and (
        len({np.sign(test["first"] - test["second"]) for test in tests}) == 1
    )
    beyond = difference.low is not None and (difference.low > 0 or difference.high < 0)
    verb = "helped" if mean > 0 else "hurt"
    # What comes first.
    if beyond:
        assert text.startswith(f"The teacher {verb}: over {count} seeds"), text
        assert verdict.conclusion == verb
    elif significant:
        assert text.startswith(f"The teacher {verb} in "), text
        assert verdict.conclusion == f"{verb} in these runs"
    elif count == 1:
        assert text.startswith("Not known: with one seed"), text
        assert verdict.conclusion == "not known"
    else:
        assert text.startswith(f"Not significant: over {count} seeds"), text
        assert verdict.conclusion == "not significant"
    assert ("includes 0" in text.split(").")[0]) == (count > 1 and not beyond)
    if any(test["p"] < 0.05 for test in tests) and count == 1:
        assert "not known" not in text.lower()
    if "helped" not in verdict.conclusion:
        assert "helped" not in text
        assert "closed" not in text
    # The images behind the points, and the direction.
    if abs(mean) > 1e-9:
        behind = f"{abs(mean) * images:,.1f}".removesuffix(".0")
        assert f" points ({behind} of {images:,} images) " in text, text
        assert f"{'above' if mean > 0 else 'below'} the baseline" in text
    else:
        assert "as accurate as the baseline" in text
    # Nothing is said of the teacher that no test supports.
    if lead is None:
        assert "teacher's accuracy on these images is unknown" in text
        assert "the teacher." not in text
        return
    apart = lead.difference
    certain = all(test["p"] < 0.05 for test in lead.tests) or (
        apart.low is not None and (apart.low > 0 or apart.high < 0)
    )
    assert ("above the teacher" not in text) or (certain and apart.mean > 0)
    assert ("below the teacher" not in text) or (certain and apart.mean < 0)


@pytest.mark.parametrize(
    ("first", "second", "begins"),
    [
        (2, 0, "Not known: with one seed the student is 4.17 points (2 of 48 images) above"),
        (0, 1, "Not known: with one seed the student is 2.08 points (1 of 48 images) below"),
        (14, 1, "The teacher helped in this run: with one seed the student is 27.08 points (13 of"),
        (1, 14, "The teacher hurt in this run: with one seed the student is 27.08 points (13 of"),
    ],
)
def test_one_seed_goes_by_mcnemar_s_test(first: int, second: int, begins: str) -> None:
    *_, verdict = said([(first, second)], 48, (0, 2), 0.25)
    assert verdict.text.startswith(begins)
    assert f"by the student only: {first}, by the baseline only: {second};" in verdict.text
    assert "--seeds" in verdict.text


def test_two_images_more_than_a_teacher_at_chance_are_not_above_it() -> None:
    """16 of 48 images, where the most frequent of three classes has 16."""
    gain = Evidence(paired([18 / 48], [16 / 48], 48), [discordant(5, 3)], 48)
    lead = Evidence(paired([18 / 48], [16 / 48], 48), [discordant(5, 3)], 48)
    accuracies = {"teacher": 16 / 48, "baseline": 16 / 48, "student": 18 / 48}
    text = judge(gain, accuracies, lead, 1 / 3).text
    assert text.startswith("Not known")
    assert "above the teacher" not in text
    assert "16 of 48 images): teacher (16), baseline (16), student (18)." in text


def test_the_gap_is_said_only_where_the_teacher_helped() -> None:
    def text(teacher: tuple[int, int]) -> str:
        return said([(700, 400)], 10_000, teacher, 0.1)[2].text

    assert "closed 3.00 of the 6.00 points from baseline to teacher (50 %)." in text((100, 400))
    assert "(99 %)" in text((0, 1))
    all_of_it = "The student closed all of the 3.00 points from baseline to teacher."
    assert f"{all_of_it} Student and teacher do not differ significantly" in text((5, 5))
    assert "is 1.00 points (100 of 10,000 images) above the teacher" in text((100, 0))
    assert "no gap to close" in text((300, 0))
    assert "no gap to close" in text((400, 0))
    assert "closed" not in said([(7, 6)], 10_000, (0, 400), 0.1)[2].text


def test_seeds_that_agree_are_no_proof_where_an_image_decides() -> None:
    """Two seeds of +1 image have a spread of 0, but not an interval of no width."""
    assert said([(1, 0)] * 2, 48, None, 0.1)[2].conclusion == "not significant"
    assert said([(12, 4)] * 3, 48, None, 0.1)[2].conclusion == "helped"


def test_significant_runs_with_a_wide_interval_are_said_to_be_so() -> None:
    *_, verdict = said([(100, 20), (400, 20)], 10_000, None, 0.1)
    assert verdict.text.startswith("The teacher helped in each of these 2 runs")
    assert "McNemar's p < 0.0001 or less" in verdict.text
    assert "includes 0" in verdict.text


def test_selected_settings_need_a_corrected_p() -> None:
    difference = Difference(3, 0.01, 0.002, 0.002, 0.018, 0.02)
    assert Evidence(difference, tried=2).holds_over_seeds()
    assert not Evidence(difference, tried=3).holds_over_seeds()
