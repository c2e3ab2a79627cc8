"""Generates scenes with exact ground truth from the photographs inside packages: synthetic data, said to be so."""
