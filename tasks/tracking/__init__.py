"""Tracking of one object through a sequence, given its box in the first frame."""
