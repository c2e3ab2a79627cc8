"""Everything between a spec and its first trial."""
