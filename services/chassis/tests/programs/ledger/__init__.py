"""A service with a database and a migration."""
