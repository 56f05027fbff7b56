"""Which Helm releases make up the platform, in which order, with which values files.

Derived from the tree: `services/*/service.yaml`, the charts and `k8s/environments/<env>`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from scripts.kube.errors import ToolError
from scripts.topology import ROOT, Topology

ENVIRONMENTS = Path("k8s", "environments")
GATEWAY = "gateway"
DATASTORES = "datastores"
OBSERVABILITY = "observability"
GUARDED = ("staging", "production")
"""Environments that bring their own databases and secrets; nothing changes them by accident."""
# What the other releases do where ours observes: services.yaml and gateway.yaml say where spans go,
# datastores.yaml that PostgreSQL has metrics.
TRACING = Path("k8s", "tracing")

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Images:
    """Which images to run: `registry` before each name, one `tag`, or a digest per package."""

    tag: str = ""
    registry: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tag and not _TAG.fullmatch(self.tag):
            raise ToolError(f"TAG={self.tag}: no image tag; give one such as 1.4.0")
        for name, digest in self.digests.items():
            if not _DIGEST.fullmatch(digest):
                raise ToolError(f"digest of {name}: {digest!r} is not sha256:<64 hex digits>")

    def sets(self, package: str, repository: str) -> list[str]:
        """Return helm's settings for a release of `package`."""
        sets = []
        if self.registry:
            sets.append(f"image.repository={self.registry.rstrip('/')}/{repository}")
        if self.tag:
            sets.append(f"image.tag={self.tag}")
        if digest := self.digests.get(package):
            sets.append(f"image.digest={digest}")
        return sets


@dataclass(frozen=True)
class Release:
    """One release: its chart, its values files in order, and single settings on top.

    When `reuses`, the values come from the release as it runs, not from files.
    """

    name: str
    chart: Path
    values: tuple[Path, ...]
    sets: tuple[str, ...] = ()
    reuses: bool = False

    def with_image(self) -> Release:
        """Return the release as it runs, whatever it was installed with, but for its image.

        Raises:
            ToolError: no image was named for it.
        """
        named = {each.partition("=")[0] for each in self.sets}
        if named.isdisjoint({"image.tag", "image.digest"}):
            raise ToolError(f"SERVICE={self.name}: TAG and DIGESTS name no image of it")
        # A digest that is there would win over the tag.
        sets = self.sets if "image.digest" in named else (*self.sets, "image.digest=")
        return replace(self, values=(), sets=sets, reuses=True)


def environments(root: Path = ROOT) -> list[str]:
    """Return the names of the environments."""
    return sorted(path.name for path in (root / ENVIRONMENTS).iterdir() if path.is_dir())


def releases(
    topology: Topology, environment: str, images: Images | None = None, *, observed: bool = False
) -> list[Release]:
    """Return the releases of `environment` in the order of their installation.

    When `observed`, an environment with a file `observability.yaml` gets that release too, and
    services and a gateway that send their spans to its Jaeger.

    Raises:
        ToolError: there is no such environment.
    """
    root = topology.root
    folder = root / ENVIRONMENTS / environment
    if not folder.is_dir():
        raise ToolError(f"ENV={environment}: unknown; use one of {', '.join(environments(root))}")
    images = images or Images()
    found: list[Release] = []
    observing = folder / f"{OBSERVABILITY}.yaml"
    traced = observed and observing.is_file()
    if (folder / f"{DATASTORES}.yaml").is_file():
        needs = root / "k8s" / "datastores-services.yaml"
        metrics = [root / TRACING / f"{DATASTORES}.yaml"] if traced else []
        values = [needs, *metrics, folder / f"{DATASTORES}.yaml"]
        found.append(Release(DATASTORES, root / "charts" / DATASTORES, tuple(values)))
    if traced:
        found.append(Release(OBSERVABILITY, root / "charts" / OBSERVABILITY, (observing,)))
    for service in topology.start_order:
        own = root / "services" / service.name / "service.yaml"
        tracing = [root / TRACING / "services.yaml"] if traced else []
        values = [own, *tracing, folder / "services.yaml"]
        if (folder / f"{service.name}.yaml").is_file():
            values.append(folder / f"{service.name}.yaml")
        sets = tuple(images.sets(service.package, service.image))
        found.append(Release(service.name, root / "charts" / "service", tuple(values), sets))
    tracing = [root / TRACING / "gateway.yaml"] if traced else []
    routes = root / "k8s" / "gateway-services.yaml"
    values = [routes, *tracing, folder / f"{GATEWAY}.yaml"]
    found.append(Release(GATEWAY, root / "charts" / GATEWAY, tuple(values)))
    return found
