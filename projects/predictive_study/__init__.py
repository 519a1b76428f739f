"""Comparison of predictive and plain VAEs; see README.md."""
