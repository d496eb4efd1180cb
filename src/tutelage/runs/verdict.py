"""Says whether the teacher helped: the only place where statistics become words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tutelage.evaluation.chance import beats_chance
from tutelage.evaluation.statistics import LEVEL, Difference, mcnemar, paired
from tutelage.formatting import amount, images, p_value
from tutelage.runs.run_reader import Record

_NOTHING = 1e-12  # larger than rounding differences between orders of summation


@dataclass(frozen=True)
class Evidence:
    """One model against another on the same images.

    Attributes:
        difference: of their accuracies, 0 to 1, over seeds.
        tests: McNemar's test of each seed; empty if the predictions are unknown.
        images: the number of images; None if unknown.
        tried: how many settings the first model was selected from, on these images.
    """

    difference: Difference
    tests: Sequence[Mapping[str, Any]] = ()
    images: int | None = None
    tried: int = 1

    def sign(self) -> int:
        """1 if the first model is above the other, -1 if below, 0 if they are equal."""
        return int(np.sign(self.difference.mean)) * (abs(self.difference.mean) > _NOTHING)

    def holds_over_seeds(self) -> bool:
        """Whether the 95 % interval excludes 0; for a selected model, corrected (Bonferroni)."""
        low, high, p = self.difference.low, self.difference.high, self.difference.p
        if low is None or high is None or p is None or low <= 0 <= high:
            return False
        return high < 0 or p * self.tried < LEVEL

    def holds_in_each_run(self) -> bool:
        """Whether McNemar's test is significant for every seed, in the same direction."""
        return len(self.tests) == self.difference.count and all(
            test["p"] < LEVEL and np.sign(test["first"] - test["second"]) == self.sign()
            for test in self.tests
        )

    def place(self, other: str) -> str:
        """`4.17 points (2 of 48 images) above the baseline`."""
        if not self.sign():
            return f"as accurate as {other}"
        mean = self.difference.mean
        return f"{amount(mean, self.images)} {'above' if mean > 0 else 'below'} {other}"

    def grounds(self, first: str, second: str) -> str:
        """The statistics behind the verdict, in parentheses."""
        low, high, count = self.difference.low, self.difference.high, self.difference.count
        parts = []
        if self.tests and count == 1:
            test = self.tests[0]
            parts.append(
                f"images classified correctly by {first} only: {test['first']:,}, by {second} "
                f"only: {test['second']:,}; McNemar's {p_value(test['p'])}"
            )
        elif self.holds_in_each_run() and not self.holds_over_seeds():
            parts.append(f"McNemar's {p_value(max(test['p'] for test in self.tests))} or less")
        if low is not None and high is not None:
            interval = f"95 % interval {100 * low:z.2f} to {100 * high:z.2f}"
            if low <= 0 <= high:
                interval += ", includes 0"
            elif not self.holds_over_seeds():
                assert self.difference.p is not None
                corrected = min(1.0, self.difference.p * self.tried)
                interval += f"; {p_value(corrected)} after correction for {self.tried} settings"
            parts.append(interval)
        return f" ({'; '.join(parts)})" if parts else ""


@dataclass(frozen=True)
class Verdict:
    """Whether the teacher helped.

    Attributes:
        conclusion: `helped` or `hurt`, over seeds; `helped in these runs` or `hurt in these
            runs`, by McNemar's test of each; `not significant`, over seeds; or `not known`, with
            one seed whose difference is not significant.
        text: the same in sentences, with the statistics.
    """

    conclusion: str
    text: str


def judge(
    gain: Evidence,
    accuracies: Mapping[str, float],
    lead: Evidence | None = None,
    chance: float | None = None,
) -> Verdict:
    """Turn the statistics of a recipe's runs into a verdict.

    Args:
        gain: student against baseline.
        accuracies: of `teacher` (if known), `baseline` and `student`, 0 to 1, means over seeds.
        lead: student against teacher, if its accuracy is known.
        chance: accuracy of always choosing the most frequent class; None if unknown.

    Returns:
        The verdict. It claims only what a test at the 5 % level supports.

    Example:

    >>> from tutelage.evaluation.statistics import paired
    >>> from tutelage.runs.verdict import Evidence, judge
    >>> gain = Evidence(paired([0.5], [0.25], 8), [{"first": 3, "second": 1, "p": 0.625}], 8)
    >>> judge(gain, {"baseline": 0.25, "student": 0.5}).conclusion
    'not known'
    """
    conclusion, text = conclude(gain)
    sentences, lost = [text], []
    if chance is not None and gain.images is not None:
        total = gain.images
        lost = [
            name
            for name, accuracy in accuracies.items()
            if not beats_chance(round(accuracy * total), total, chance)
        ]
        if lost:
            models = ", ".join(f"{name} ({images(accuracies[name] * total)})" for name in lost)
            sentences.append(
                "No better than chance (always choosing the most frequent class: "
                f"{images(chance * total)} of {total:,} images): {models}."
            )
    if "teacher" not in accuracies:
        sentences.append("The teacher's accuracy on these images is unknown.")
    elif lead is not None and "teacher" not in lost:
        sentences += _position(lead, accuracies, conclusion)
    if gain.difference.count == 1:
        sentences.append("Run several seeds to measure the spread, e.g. --seeds 5.")
    return Verdict(conclusion, " ".join(sentences))


def conclude(gain: Evidence, subject: str = "the student", where: str = "") -> tuple[str, str]:
    """The conclusion on the difference from the baseline, and its sentence.

    Args:
        gain: the model against the baseline.
        subject: what to call the model.
        where: on which images, if not the test images.
    """
    count = gain.difference.count
    verb = "helped" if gain.sign() > 0 else "hurt"
    if gain.holds_over_seeds():
        conclusion, words = verb, f"The teacher {verb}{where}"
    elif gain.holds_in_each_run():
        conclusion = f"{verb} in these runs"
        runs = "this run" if count == 1 else f"each of these {count} runs"
        words = f"The teacher {verb}{where} in {runs}"
    else:
        conclusion = "not known" if count == 1 else "not significant"
        words = conclusion.capitalize() + where
    over = "with one seed" if count == 1 else f"over {count} seeds"
    other = "the baseline"
    text = f"{words}: {over} {subject} is {gain.place(other)}{gain.grounds(subject, other)}."
    return conclusion, text


def evidence(records: Sequence[Record], one: str, other: str) -> Evidence:
    """The evidence of finished runs, one a seed, on two of their models.

    Args:
        records: from `run_reader.read`.
        one: the first model, such as `student`.
        other: the second model, such as `baseline`.
    """
    total = records[0].results["data"]["test"]
    first, second = (
        [record.results["models"][name]["accuracy"] for record in records] for name in (one, other)
    )
    tests = [
        {"seed": int(record.settings["seed"])}
        | mcnemar(*(record.logits[name].argmax(axis=1) == record.labels for name in (one, other)))
        for record in records
        if {one, other} <= record.logits.keys()
    ]
    return Evidence(paired(first, second, total), tests, total)


def of(records: Sequence[Record]) -> Verdict:
    """The verdict on finished runs of one recipe, one a seed.

    Args:
        records: from `run_reader.read`.
    """
    known = [
        name
        for name in ("teacher", "baseline", "student")
        if all(name in record.results["models"] for record in records)
    ]
    accuracies = {
        name: float(np.mean([record.results["models"][name]["accuracy"] for record in records]))
        for name in known
    }
    lead = evidence(records, "student", "teacher") if "teacher" in known else None
    labels = next((record.labels for record in records if len(record.labels)), None)
    chance = None if labels is None else float(np.bincount(labels).max() / len(labels))
    return judge(evidence(records, "student", "baseline"), accuracies, lead, chance)


def _position(lead: Evidence, accuracies: Mapping[str, float], conclusion: str) -> list[str]:
    """Sentences on where the student is between baseline and teacher."""
    bottom, reached, top = (accuracies[name] for name in ("baseline", "student", "teacher"))
    # In whole hundredths of a point, as they are printed.
    gap, closed = round(10_000 * (top - bottom)), round(10_000 * (reached - bottom))
    sentences = []
    if gap <= 0:
        sentences.append(
            f"The teacher has {100 * top:.2f} % and the baseline {100 * bottom:.2f} %: there was "
            "no gap to close."
        )
    elif conclusion.startswith("helped"):
        if closed < gap:
            part = min(round(100 * closed / gap), 99)  # 100 % only if the gap is closed
            return [
                f"The student closed {closed / 100:.2f} of the {gap / 100:.2f} points from "
                f"baseline to teacher ({part} %)."
            ]
        sentences.append(
            f"The student closed all of the {gap / 100:.2f} points from baseline to teacher."
        )
    grounds = lead.grounds("the student", "the teacher")
    if lead.holds_over_seeds() or lead.holds_in_each_run():
        sentences.append(f"The student is {lead.place('the teacher')}{grounds}.")
    else:
        sentences.append(f"Student and teacher do not differ significantly{grounds}.")
    return sentences
