"""The development trace view: takes OTLP, keeps the last traces, shows each one as a tree."""
