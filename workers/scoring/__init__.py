"""What networks are worth: metrics, their jackknife, curves, pictures, sparsification. Knows no study and no storage."""
