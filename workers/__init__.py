"""Runs a trial on a node, from its spec to its figures."""
