"""Monocular depth estimation on NYUv2 and KITTI (Table 2): loss, figures, test by sliding windows, augmentation, head."""
