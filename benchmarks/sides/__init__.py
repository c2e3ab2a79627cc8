"""What benchmarks of two sides share: turns and the loop's side of a step (all dense tasks), the script (some)."""
