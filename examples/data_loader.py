"""Distill with a PyTorch DataLoader of your own, and its augmentation.

    python examples/data_loader.py

A `keras.utils.PyDataset`, a `tf.data.Dataset` or a grain data set is given in the same way.
"""

import tempfile

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

import tutelage


class Digits(Dataset):
    """Digits as PyTorch has images: (channels, height, width), shifted by up to a pixel."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images = torch.tensor(images).permute(0, 3, 1, 2)  # uint8: raw pixels
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        down, right = torch.randint(-1, 2, (2,)).tolist()
        image = torch.roll(self.images[index], (down, right), dims=(1, 2))
        return image, int(self.labels[index])


def main(epochs: int = 20) -> dict[str, float]:
    """Train teacher, baseline and student; returns the test accuracies of the three models."""
    digits = tutelage.load_dataset("digits")
    images, labels = digits.train.images, digits.train.labels
    training = Digits(images[:-200], labels[:-200])
    outcome = tutelage.distill(
        teacher="digits-teacher",  # trained on the loader, too; or your own model
        student="digits-student",
        data=(
            DataLoader(training, batch_size=32, shuffle=True, drop_last=True),
            (images[-200:], labels[-200:]),  # validation
            (digits.test.images, digits.test.labels),
        ),
        recipe="digits",
        settings={"schedule.teacher.epochs": epochs, "schedule.student.epochs": epochs},
        out=tempfile.mkdtemp(),
    )
    print(outcome.results["data"]["notes"][0])
    print(outcome.results["verdict"])
    return {name: model["accuracy"] for name, model in outcome.results["models"].items()}


if __name__ == "__main__":
    print(main())
