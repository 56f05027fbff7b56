"""Proves that a release serves: `serves.py [--version V] [--timeout S] URL...`.

Run by `helm test` in the service's own image, with the standard library only. Each URL must be
ready and, with `--version`, publish an OpenAPI document of that version. Tried again until the
timeout (seconds), because the last pods of the version before may still answer.
"""

# ruff: noqa: INP001  (a script inside a chart)
import argparse
import json
import sys
import time
import urllib.request

_PAUSE_SECONDS = 1.0
# Whatever proxy the environment names, a peer in the cluster is not behind it.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(url: str) -> bytes:
    """Return the body of a 2xx answer."""
    with _opener.open(url, timeout=5) as answer:
        body: bytes = answer.read()
        return body


def problem(url: str, version: str) -> str:
    """Say what is wrong with the service at `url`; empty when it serves."""
    try:
        get(f"{url}/readyz")
        if not version:
            return ""
        document = json.loads(get(f"{url}/openapi.json"))
    except (OSError, ValueError) as error:
        return f"{url}: {error}"
    found = document.get("info", {}).get("version")
    if found != version:
        return f"{url}: version {found} answers, not {version}"
    return "" if document.get("paths") else f"{url}: its OpenAPI document has no paths"


def main() -> int:
    """Exit code 1 when a URL does not serve in time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--version", default="")
    parser.add_argument("--timeout", type=float, default=60)
    parser.add_argument("urls", nargs="+")
    options = parser.parse_args()
    ends = time.monotonic() + options.timeout
    for url in options.urls:
        while wrong := problem(url, options.version):
            if time.monotonic() > ends:
                print(wrong, file=sys.stderr)
                return 1
            time.sleep(_PAUSE_SECONDS)
        print(f"{url}: serves")
    return 0


if __name__ == "__main__":
    sys.exit(main())
