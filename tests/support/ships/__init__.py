"""A task that only the tests have, in one folder: ships seen from above."""
