"""What a student learns: losses on the teacher's logits and inner layers, and on the labels."""

from tutelage.losses.checks import is_finite_number
from tutelage.losses.features import (
    RKD,
    AttentionTransfer,
    FeatureLoss,
    FitNet,
    SimilarityPreserving,
)
from tutelage.losses.labels import CrossEntropy
from tutelage.losses.logits import DIST, DKD, KD, NKD, LabelledLoss, LogitsLoss, StandardizedKD
from tutelage.losses.review import ReviewKD

__all__ = [
    "DIST",
    "DKD",
    "KD",
    "NKD",
    "RKD",
    "AttentionTransfer",
    "CrossEntropy",
    "FeatureLoss",
    "FitNet",
    "LabelledLoss",
    "LogitsLoss",
    "ReviewKD",
    "SimilarityPreserving",
    "StandardizedKD",
    "is_finite_number",
]
