"""The files that the programs read, written anew at each start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

RETENTION = "7d"
_EXEMPLARS = 100_000


def prometheus(targets: Path, rules: Path, interval: str) -> str:
    """Return prometheus.yml: the targets of a file, the rules of a folder, exemplars kept."""
    return _yaml(
        {
            "global": {"scrape_interval": interval, "evaluation_interval": interval},
            "storage": {"exemplars": {"max_exemplars": _EXEMPLARS}},
            "rule_files": [str(rules / "*.yaml")],
            "scrape_configs": [
                {
                    "job_name": "slipway",  # each target brings the job of its service
                    "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "5s"}],
                }
            ],
        }
    )


def prometheus_flags(config: Path, data: Path, port: int) -> tuple[str, ...]:
    """Return the arguments of Prometheus, 2.42 or later."""
    return (
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--storage.tsdb.retention.time={RETENTION}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
    )


def data_sources(prometheus_port: int, jaeger: str | None, view: str | None) -> str:
    """Return Grafana's data sources, under the names that the dashboards use.

    An exemplar leads to its trace: in Jaeger, else in the trace view, if the platform runs it.
    """
    destination: dict[str, str] | None = None
    if jaeger:
        destination = {"name": "trace_id", "datasourceUid": "jaeger"}
    elif view:
        destination = {"name": "trace_id", "url": f"{view}/trace/$${{__value.raw}}"}
    sources: list[dict[str, Any]] = [
        {
            "name": "Prometheus",
            "uid": "prometheus",
            "type": "prometheus",
            "url": f"http://127.0.0.1:{prometheus_port}",
            "isDefault": True,
            "jsonData": {
                "httpMethod": "POST",
                **({"exemplarTraceIdDestinations": [destination]} if destination else {}),
            },
        }
    ]
    if jaeger:
        sources.append({"name": "Jaeger", "uid": "jaeger", "type": "jaeger", "url": jaeger})
    for source in sources:
        source["access"] = "proxy"
    return _yaml({"apiVersion": 1, "datasources": sources})


def dashboard_provider(folder: Path) -> str:
    """Return Grafana's provider of the committed dashboards."""
    return _yaml(
        {
            "apiVersion": 1,
            "providers": [
                {
                    "name": "slipway",
                    "folder": "Slipway",
                    "type": "file",
                    "allowUiUpdates": False,
                    "options": {"path": str(folder)},
                }
            ],
        }
    )


def grafana_environment(data: Path, provisioning: Path, home: Path, port: int) -> dict[str, str]:
    """Return Grafana's settings: on the loopback address, no login, nothing sent anywhere."""
    return {
        "GF_PATHS_DATA": str(data),
        "GF_PATHS_PROVISIONING": str(provisioning),
        "GF_PATHS_LOGS": str(data / "log"),
        "GF_LOG_MODE": "console",
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Editor",
        "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(home),
    }


def _yaml(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, width=1000)
