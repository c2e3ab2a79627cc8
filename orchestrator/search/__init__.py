"""Search algorithms, early stopping and population-based training."""
