"""Data sets and weights, fetched or converted by hand."""
