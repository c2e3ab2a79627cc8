"""Data sets, by what they hold."""
