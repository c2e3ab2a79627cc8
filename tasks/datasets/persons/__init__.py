"""Persons in photographs: boxes and joints, as COCO and CrowdPose annotate them."""
