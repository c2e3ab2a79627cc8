"""What happens on a node: one trial, from its spec to its figures."""
