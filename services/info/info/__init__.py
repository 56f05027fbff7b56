"""The info service."""
