"""Monocular depth estimation (Table 2): loss, figures, test by sliding windows, augmentation, head."""
