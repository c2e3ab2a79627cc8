"""Plain data that the store takes and gives."""
