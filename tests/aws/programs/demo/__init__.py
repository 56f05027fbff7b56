"""A service that shows what an execution environment does with it."""
