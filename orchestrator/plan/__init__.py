"""Plans the trials of a job and estimates their cost, without I/O."""
