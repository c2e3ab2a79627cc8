"""Human pose: the joints of each person in a box, as heat maps."""
