"""Analyses of what weights do: attention maps, large kernels, and the similarity of layers (section 3 of the paper)."""
