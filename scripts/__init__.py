"""The tools behind make."""
