"""Masked image modeling."""
