"""Mirrors jobs into MLflow."""
