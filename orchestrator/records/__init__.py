"""Plain data that goes into the store and comes out of it, and questions to a recorded spec."""
