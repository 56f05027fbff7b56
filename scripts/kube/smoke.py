"""`make smoke`: does the deployed platform take an order? One new buyer, one order, one message.

Goes through the Ingress or the Gateway in front when a controller has given it an address, else
through a forwarded port. Exit code 1 with one line when a step fails.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import httpx2
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from scripts import demo
from scripts.kube.cluster import connect, reachable, reason
from scripts.kube.deploy import NAMESPACE
from scripts.kube.entry import address, forwarded
from scripts.kube.errors import ToolError

_SECONDS = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.kube.smoke", description=__doc__)
    parser.add_argument("--namespace", default=NAMESPACE)
    parser.add_argument("--context", default="")
    parser.add_argument("--url", default=os.environ.get("SLIPWAY_URL", ""), help="the gateway's")
    parser.add_argument("--host", default="", help="the Host header, when it is not in the URL")
    parser.add_argument("--forward", action="store_true", help="always by a forwarded port")
    parser.add_argument("--insecure", action="store_true", help="take any certificate")
    options = parser.parse_args(arguments)
    try:
        with _entry(options) as url:
            headers = {"Host": options.host} if options.host else {}
            with httpx2.Client(
                base_url=url,
                headers=headers,
                timeout=_SECONDS,
                trust_env=False,
                verify=not options.insecure,
            ) as client:
                demo.run(client)
    except ToolError as error:
        print(f"smoke: {error}", file=sys.stderr)
        return error.code
    except (demo.DemoError, httpx2.HTTPError, ApiException, HTTPError, OSError) as error:
        print(f"smoke: {reason(error)}", file=sys.stderr)
        return 1
    print("smoke: passed")
    return 0


def _entry(options: argparse.Namespace) -> AbstractContextManager[str]:
    if options.url:
        return nullcontext(options.url)
    cluster = connect(options.context or None)
    reachable(cluster)
    found = None if options.forward else address(cluster, options.namespace)
    if found is None:
        print("smoke: through a forwarded port")
        return forwarded(cluster, options.namespace)
    url, host = found
    options.host = options.host or host
    print(f"smoke: through {url}" + (f" as {options.host}" if options.host else ""))
    return nullcontext(url)


if __name__ == "__main__":
    raise SystemExit(main())
