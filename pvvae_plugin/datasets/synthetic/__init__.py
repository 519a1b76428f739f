"""Procedural clips: moving shapes, drawn on demand."""

from .dataset import SyntheticVideoDataset

__all__ = ['SyntheticVideoDataset']
