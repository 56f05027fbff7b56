"""A service that tests start as a real process."""
