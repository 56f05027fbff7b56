"""Prometheus, Grafana and Jaeger for the platform of this machine, behind `make observe`."""
