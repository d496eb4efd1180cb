"""Distill with unlabeled images: the teacher's soft targets are enough.

    python examples/unlabeled_images.py

A teacher is trained on few labeled images; the student learns from its soft targets on these and
on a pool of unlabeled images. On the command line: `tutelage distill ... --unlabeled pool/`.
"""

import tempfile

import tutelage
from tutelage.data.datasets import Dataset, Part


def main(labeled: int = 400, epochs: int = 20) -> dict[str, float]:
    """Distill with and without the pool; returns the students' test accuracies."""
    digits = tutelage.load_dataset("digits")
    images, labels = digits.train.images, digits.train.labels
    data = Dataset(
        "few digits",
        digits.classes,
        Part(images[:labeled], labels[:labeled]),
        digits.test,
        f"the first {labeled} of {digits.fingerprint}",
        digits.source,
    )
    shared = {
        "teacher": "digits-teacher",
        "student": "digits-student",
        "data": data,
        "recipe": "digits",
    }
    settings = {"schedule.teacher.epochs": epochs, "schedule.student.epochs": epochs}
    runs = tempfile.mkdtemp()  # shared, so that the teacher is trained once
    few = tutelage.distill(**shared, settings=settings | {"loss.alpha": 1.0}, out=f"{runs}/few")
    more = tutelage.distill(
        **shared, settings=settings, unlabeled=images[labeled:], out=f"{runs}/more"
    )
    accuracies = {"labeled images alone": few, "and the pool": more}
    return {
        name: outcome.results["models"]["student"]["accuracy"]
        for name, outcome in accuracies.items()
    }


if __name__ == "__main__":
    print(main())
