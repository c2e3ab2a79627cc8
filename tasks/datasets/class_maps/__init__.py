"""Images with the class of every pixel, as ADE20K annotates them."""
