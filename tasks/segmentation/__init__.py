"""Semantic segmentation: the class of every pixel, by UperNet or Mask2Former."""
