"""What a student learns: losses on the teacher's logits and inner layers, and on the labels."""

from tutelage.losses.cross_entropy import CrossEntropy
from tutelage.losses.features import (
    RKD,
    AttentionTransfer,
    FeatureLoss,
    FitNet,
    SimilarityPreserving,
)
from tutelage.losses.logits import DIST, DKD, KD, NKD, LabelledLoss, LogitsLoss, StandardizedKD
from tutelage.losses.review_kd import ReviewKD
from tutelage.losses.validation import is_finite_number

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
