"""Distill a PyTorch teacher into a Keras student.

    python examples/torch_teacher.py

The teacher can also be an ONNX file, a run folder or `package.module:function`. On the command
line: `tutelage distill --teacher mine.onnx --student student-300k --data images/`.
"""

import tempfile

import numpy as np
import torch

import tutelage


def train(images: np.ndarray, labels: np.ndarray, epochs: int) -> torch.nn.Module:
    """Train a small teacher; any PyTorch module from NCHW images to logits works."""
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 32, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(32 * 4 * 4, 10),
    )
    x, y = torch.tensor(images).permute(0, 3, 1, 2) / 16, torch.tensor(labels)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(10 * epochs):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    return module


def main(epochs: int = 20) -> dict[str, float]:
    """Train the teacher and distill it; returns the test accuracies of the three models."""
    digits = tutelage.load_dataset("digits")
    outcome = tutelage.distill(
        teacher=train(digits.train.images, digits.train.labels, epochs),
        student="digits-student",
        data="digits",
        recipe="digits",  # small images, small batches
        settings={"teacher.scale": 16, "schedule.student.epochs": epochs},
        out=tempfile.mkdtemp(),
    )
    print(outcome.results["verdict"])
    return {name: model["accuracy"] for name, model in outcome.results["models"].items()}


if __name__ == "__main__":
    print(main())
