"""Images with a depth map each: lists of pairs, depth files, the known sets, and sets that a spec describes."""
