"""Heat maps, curves and scatter plots as SVG."""
