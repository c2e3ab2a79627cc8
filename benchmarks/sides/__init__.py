"""What benchmarks/detection.py and benchmarks/segmentation.py share: turns, the loop's side of a step, the script."""
