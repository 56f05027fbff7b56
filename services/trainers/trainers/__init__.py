"""The trainers service: commands and queries, each scaled by itself."""
