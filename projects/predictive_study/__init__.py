"""Compares predictive VAEs with plain ones; see README.md."""
