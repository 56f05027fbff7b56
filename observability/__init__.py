"""What is watched, as code: `rules` and `dashboards` for Prometheus and Grafana, generated here."""
