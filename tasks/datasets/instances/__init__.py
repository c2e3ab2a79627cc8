"""Objects in images with boxes and masks, as COCO annotates them."""
