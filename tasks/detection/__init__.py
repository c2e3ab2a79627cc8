"""Detection of objects and their masks with Mask R-CNN."""
