"""Tables, pages and status, from what the store holds."""
