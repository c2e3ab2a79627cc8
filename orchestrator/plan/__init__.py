"""Plans trials and estimates their cost, without I/O."""
