"""What a student learns: losses on the teacher's logits, and on the labels."""

from tutelage.losses.checks import is_finite_number
from tutelage.losses.labels import CrossEntropy
from tutelage.losses.logits import DIST, DKD, KD, NKD, LabelledLoss, LogitsLoss, StandardizedKD

__all__ = [
    "DIST",
    "DKD",
    "KD",
    "NKD",
    "CrossEntropy",
    "LabelledLoss",
    "LogitsLoss",
    "StandardizedKD",
    "is_finite_number",
]
