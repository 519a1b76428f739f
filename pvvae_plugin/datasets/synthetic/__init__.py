"""Procedural clips of moving shapes, rendered on demand."""

from .dataset import SyntheticVideoDataset

__all__ = ['SyntheticVideoDataset']
