"""Images from files, tar archives and memory, decoded once per node."""
