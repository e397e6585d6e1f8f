"""Scoring networks: metrics, their jackknife, curves, pictures, sparsification. Independent of studies and storage."""
