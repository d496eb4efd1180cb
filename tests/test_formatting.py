"""The table and the page against scikit-learn and a results.json written by hand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from tutelage import formatting
from tutelage.report import markdown

FIGURES = {
    "accuracy": 0.9123,
    "precision": 0.9,
    "recall": 1.0,
    "f1": 0.95,
    "nll": 0.31416,
    "ece": 0.01234,
    "parameters": 2_201_418,
    "macs": 153_815_552,
    "bytes": 8_840_000,
    "seconds": 725.4,
}
CLASSES = ["cat", "dog", "eel"]
MODELS = {
    "teacher": FIGURES | {"agreement": 1.0, "kl": 0.0},
    "student": FIGURES | {"agreement": 0.5, "kl": 0.25, "macs": 42_400, "bytes": 31_000},
}
RESULTS: dict[str, Any] = {
    "name": "pets",
    "models": MODELS,
    "validation": {
        "teacher": {"accuracy": 0.9, "nll": 0.3},
        "student": {"accuracy": 0.8, "nll": 1},
    },
    "verdict": "The student closed half of it.",
    "data": {
        "name": "Pets",
        "classes": CLASSES,
        "train": 9_000,
        "validation": 1_000,
        "test": 60,
    },
    "environment": {
        "command": "tutelage run pets.toml",
        "commit": "0123456789ab",
        "date": "2026-01-02T03:04:05+00:00",
        "precision": "bfloat16",
        "hardware": {"cores": 2, "processor": "Abacus 3", "accelerator": None},
    },
}
LABELS = np.arange(60) % 3
ANSWERS = {
    "teacher": np.eye(3)[LABELS],
    "student": np.random.default_rng(0).normal(size=(60, 3)) * [1, 1, 0.2],
}


def tables(page: str) -> list[list[list[str]]]:
    """The Markdown tables of a page, as rows of cells, their rules left out."""
    found: list[list[list[str]]] = [[]]
    for line in page.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif found[-1]:
            found.append([])
    # The second row is the rule between head and body.
    return [[head, *body] for head, _, *body in filter(None, found)]


def page(**changed: object) -> str:
    results = copy.deepcopy(RESULTS)
    for place, value in changed.items():
        tree = results
        *sections, last = place.split("__")
        for section in sections:
            tree = tree[section]
        tree[last] = value
    return markdown.markdown(results, ANSWERS, LABELS)


def test_rows_are_the_figures_for_people() -> None:
    teacher, student = formatting.rows(MODELS)
    assert dict(zip(formatting.HEADINGS, teacher, strict=True)) == {
        "model": "teacher",
        "accuracy": "91.23 %",
        "precision": "90.00 %",
        "recall": "100.00 %",
        "F1": "95.00 %",
        "NLL": "0.3142",
        "ECE": "1.23 %",
        "agreement": "100.00 %",
        "KL": "0.0000",
        "parameters": "2,201,418",
        "MACs": "153.8 M",
        "file": "8.84 MB",
        "time": "12 min 05 s",
    }
    assert student[7:9] == ("50.00 %", "0.2500")
    assert student[10:12] == ("42.4 K", "0.03 MB")


def test_a_model_without_a_teacher_or_a_training_has_empty_cells() -> None:
    (row,) = formatting.rows({"mine": {k: v for k, v in FIGURES.items() if k != "seconds"}})
    empty = [h for h, cell in zip(formatting.HEADINGS, row, strict=True) if not cell]
    assert empty == ["agreement", "KL", "time"]


@pytest.mark.parametrize(
    ("macs", "told"),
    [(420, "0.4 K"), (999_940, "999.9 K"), (1_000_000, "1.0 M"), (2e9, "2,000.0 M")],
)
def test_operations_are_told_in_thousands_or_millions(macs: float, told: str) -> None:
    (row,) = formatting.rows({"mine": FIGURES | {"macs": macs}})
    assert row[formatting.HEADINGS.index("MACs")] == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (41.4, "41 s"),
        (59.6, "1 min 00 s"),
        (725, "12 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7380, "2 h 03 min"),
        (100 * 3600, "100 h 00 min"),
    ],
)
def test_durations_are_said_as_people_do(seconds: float, told: str) -> None:
    assert formatting.duration(seconds) == told


def test_the_page_tells_what_was_measured_where() -> None:
    text = page()
    assert text.startswith("# pets on Pets\n\nThe student closed half of it.\n")
    assert (
        "on the 60 test images with the weights of the last epoch, after training on 9,000" in text
    )
    assert "`tutelage run pets.toml`, commit 0123456789ab, 2026-01-02T03:04:05+00:00" in text
    assert "2 cores of Abacus 3, bfloat16." in text
    assert text.endswith("|\n")
    assert "commit unknown" in page(environment__commit=None)
    told = page(environment__hardware__accelerator="Loom 9")
    assert "Loom 9, 2 cores of Abacus 3" in told


def test_the_page_s_first_table_is_that_of_the_terminal() -> None:
    head, *body = tables(page())[0]
    assert head == list(formatting.HEADINGS)
    assert body == [list(row) for row in formatting.rows(MODELS)]


def test_figures_of_classes_are_scikit_learn_s() -> None:
    head, *body = tables(page())[1]
    names = ["teacher precision", "teacher recall", "student precision", "student recall"]
    assert head == ["class", "images", *names]
    predicted = ANSWERS["student"].argmax(1)
    precision = precision_score(LABELS, predicted, average=None)
    recall = recall_score(LABELS, predicted, average=None)
    assert len({f"{x:.4f}" for x in [*precision, *recall]}) > 3  # figures that can be mistaken
    for i, label in enumerate(CLASSES):
        student = [f"{100 * precision[i]:.2f} %", f"{100 * recall[i]:.2f} %"]
        assert body[i] == [label, "20", "100.00 %", "100.00 %", *student]


def test_each_model_has_its_confusion_matrix() -> None:
    text = page()
    for name, table in zip(ANSWERS, tables(text)[2:], strict=True):
        assert (
            f"## Confusion matrix of the {name}\n\nRows: true class. Columns: predicted class.\n"
            in text
        )
        counts = confusion_matrix(LABELS, ANSWERS[name].argmax(1)).tolist()
        rows = [[label, *map(str, row)] for label, row in zip(CLASSES, counts, strict=True)]
        assert table == [["", *CLASSES], *rows]
    assert counts != np.transpose(counts).tolist()  # rows and columns can be told apart


def test_class_names_can_not_break_the_tables() -> None:
    _, classes, *matrices = tables(page(data__classes=["cat|dog", "two\nlines", "eel"]))
    assert [row[0] for row in classes[1:]] == [r"cat\|dog", "two lines", "eel"]
    for matrix in matrices:
        assert [len(row) for row in matrix] == [4, 4, 4, 4]
