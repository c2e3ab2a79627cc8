"""The parts of benchmarks/dense.py: pose and depth beside code that one writes by hand."""
