"""Networks whose features or class probabilities video metrics compare."""

from .base import FeatureExtractor, build_extractor

__all__ = ['FeatureExtractor', 'build_extractor']
