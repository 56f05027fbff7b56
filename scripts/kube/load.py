"""Puts built images into a local cluster that pulls from no registry: `make images LOAD=kind`.

python -m scripts.kube.load kind|minikube [SERVICE...] [--tag T]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from scripts.images import ImageError, chosen, find_builder, output, save
from scripts.kube.kind import NAME
from scripts.topology import TopologyError

INTO = {
    "kind": ["kind", "load", "image-archive", "--name", NAME],
    "minikube": ["minikube", "image", "load"],
}


def put(cluster: str, images: Sequence[str], builder: str) -> None:
    """Load `images`, one archive after the other, into the nodes of `cluster`.

    Raises:
        ImageError: a tool is missing, or an image is.
    """
    if shutil.which(INTO[cluster][0]) is None:
        raise ImageError(f"{INTO[cluster][0]} is not on the PATH; install it", code=2)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "image.tar")
        for image in images:
            print(f"load {image}", flush=True)
            save(builder, image, file)
            output(*INTO[cluster], str(file))
            file.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.kube.load", description=__doc__)
    parser.add_argument("cluster", choices=INTO)
    parser.add_argument("services", nargs="*", metavar="SERVICE")
    parser.add_argument("--tag", default="dev")
    options = parser.parse_args(arguments)
    try:
        wanted = [f"{service.image}:{options.tag}" for service in chosen(options.services)]
        put(options.cluster, wanted, find_builder())
    except TopologyError as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    except ImageError as error:
        print(f"load: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
