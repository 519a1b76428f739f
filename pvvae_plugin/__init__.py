"""Predictive video VAEs (PV-VAE) for MMEngine."""

from .version import __version__

__all__ = ['__version__']
