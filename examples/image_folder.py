"""Distill on your own images: a folder with one subfolder per class.

    python examples/image_folder.py [FOLDER]

Without FOLDER, one is created from scikit-learn's digits. A folder may contain `train` and
`test`, each with the classes; without a test part, a fifth of the images is split off.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

import tutelage


def make_folder(count: int) -> Path:
    """Create a folder of digit images, `3/0007.png` and so on."""
    folder = Path(tempfile.mkdtemp())
    digits = tutelage.load_dataset("digits")
    for number, label in enumerate(digits.train.labels[:count]):
        place = folder / digits.classes[label] / f"{number:04d}.png"
        place.parent.mkdir(exist_ok=True)
        Image.fromarray(digits.train.images[number, ..., 0] * 15).save(place)
    return folder


def main(folder: Path, epochs: int = 20) -> Path:
    """Train teacher, baseline and student on a folder; returns the student's file."""
    outcome = tutelage.distill(
        teacher="digits-teacher",  # trained first; or your own file
        student="digits-student",
        data=folder,
        settings={
            "data.size": [16, 16],
            "views.flip": False,  # a mirrored digit is not a digit
            "schedule.teacher.epochs": epochs,
            "schedule.student.epochs": epochs,
        },
        out=tempfile.mkdtemp(),
    )
    print(outcome.results["verdict"])
    return outcome.folder / "student.keras"


if __name__ == "__main__":
    print(main(Path(sys.argv[1]) if len(sys.argv) > 1 else make_folder(1000)))
