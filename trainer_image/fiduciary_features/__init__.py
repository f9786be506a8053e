"""Causal features, labels, fitted transforms and the signature of a model: one code for training and serving.

numpy only. What the trainer computed for a row, the server computes again from the same rows, bit for bit.
"""

from fiduciary_features.bars import Bars, MissingColumn
from fiduciary_features.definitions import FEATURES, SETS, Feature
from fiduciary_features.labels import LABEL_KINDS, LabelKind, Labels, label_columns, labels
from fiduciary_features.signature import signature
from fiduciary_features.spec import FeatureSpec
from fiduciary_features.transforms import Transform

__all__ = [
    "FEATURES",
    "LABEL_KINDS",
    "SETS",
    "Bars",
    "Feature",
    "FeatureSpec",
    "LabelKind",
    "Labels",
    "MissingColumn",
    "Transform",
    "label_columns",
    "labels",
    "signature",
]
