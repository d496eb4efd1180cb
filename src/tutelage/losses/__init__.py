"""Losses on the teacher's logits, its intermediate layers and the labels."""

from tutelage.losses.attention_transfer import AttentionTransfer
from tutelage.losses.cross_entropy import CrossEntropy
from tutelage.losses.dist import DIST
from tutelage.losses.dkd import DKD
from tutelage.losses.feature_loss import FeatureLoss
from tutelage.losses.fitnet import FitNet
from tutelage.losses.kd import KD
from tutelage.losses.logits_loss import LabeledLoss, LogitsLoss
from tutelage.losses.nkd import NKD
from tutelage.losses.review_kd import ReviewKD
from tutelage.losses.rkd import RKD
from tutelage.losses.similarity_preserving import SimilarityPreserving
from tutelage.losses.standardized_kd import StandardizedKD
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
    "LabeledLoss",
    "LogitsLoss",
    "ReviewKD",
    "SimilarityPreserving",
    "StandardizedKD",
    "is_finite_number",
]
