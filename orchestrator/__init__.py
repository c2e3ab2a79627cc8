"""Decides what runs, where, and what it showed."""
