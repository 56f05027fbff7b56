"""Which releases are installed, in which order, with which values; what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from scripts.kube import deploy
from scripts.kube.cluster import Cluster, looks_like_production
from scripts.kube.errors import ToolError
from scripts.kube.helm import last_words
from scripts.kube.releases import Images, environments, releases
from scripts.topology import ROOT, load

TOPOLOGY = load()


def test_a_service_comes_after_what_it_depends_on() -> None:
    names = [release.name for release in releases(TOPOLOGY, "dev", observed=True)]
    assert names[:2] == ["datastores", "observability"]
    assert names[-1] == "gateway"
    for service in TOPOLOGY:
        for peer in service.depends_on:
            assert names.index(peer) < names.index(service.name)
    assert set(names) == {"datastores", "observability", "gateway", *TOPOLOGY.services}


def test_observability_is_installed_only_when_it_is_asked_for() -> None:
    assert "observability" not in [release.name for release in releases(TOPOLOGY, "dev")]


def test_staging_and_production_bring_their_own_datastores() -> None:
    assert set(environments()) == {"dev", "staging", "production"}
    for environment in ("staging", "production"):
        names = [release.name for release in releases(TOPOLOGY, environment, observed=True)]
        assert "datastores" not in names
        assert "observability" not in names


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize("environment", environments())
def test_spans_are_sent_where_and_only_where_there_is_a_jaeger(
    environment: str, observed: bool
) -> None:
    """To the Service and the port of charts/observability, by whoever makes spans."""
    found = releases(TOPOLOGY, environment, observed=observed)
    names = {release.name for release in found}
    endpoints = {
        release.name: tracing["endpoint"]
        for release in found
        for path in release.values
        if "endpoint" in (tracing := (yaml.safe_load(path.read_text()) or {}).get("tracing", {}))
    }
    if "observability" in names:
        assert endpoints == dict.fromkeys({"gateway", *TOPOLOGY.services}, "http://jaeger:4318")
    else:
        assert endpoints == {}
    assert ("observability" in names) is (observed and environment == "dev")
    stores = [path for release in found if release.name == "datastores" for path in release.values]
    exporting = [path for path in stores if "exporter" in path.read_text()]
    assert len(exporting) == ("observability" in names)


@pytest.mark.parametrize("environment", environments())
def test_every_values_file_is_there_and_the_more_special_one_comes_later(environment: str) -> None:
    for release in releases(TOPOLOGY, environment):
        assert (release.chart / "Chart.yaml").is_file()
        assert all(path.is_file() for path in release.values)
        places = [path.relative_to(ROOT).parts[0] for path in release.values]
        assert set(places[1:]) <= {"k8s"}
        assert places[0] == ("services" if release.name in TOPOLOGY.services else "k8s")
        kinds = [path.parent.name for path in release.values]
        assert kinds == sorted(kinds, key=lambda kind: kind == environment)


def test_no_environment_file_is_left_out() -> None:
    """A file that no release reads is a typo in its name."""
    for environment in environments():
        used = {
            path
            for release in releases(TOPOLOGY, environment, observed=True)
            for path in release.values
        }
        folder = ROOT / "k8s" / "environments" / environment
        assert set(folder.iterdir()) <= used


def test_images_become_settings_of_the_services_only() -> None:
    digest = "sha256:" + "a" * 64
    images = Images(tag="1.4.0", registry="registry.example/shop/", digests={"orders": digest})
    found = {release.name: release.sets for release in releases(TOPOLOGY, "dev", images)}
    assert found["orders"] == (
        "image.repository=registry.example/shop/slipway/orders",
        "image.tag=1.4.0",
        f"image.digest={digest}",
    )
    assert found["items"] == (
        "image.repository=registry.example/shop/slipway/items",
        "image.tag=1.4.0",
    )
    assert found["gateway"] == found["datastores"] == ()


@pytest.mark.parametrize("tag", ["a b", "x:y", "-x", "a" * 129])
def test_a_bad_tag_is_refused(tag: str) -> None:
    with pytest.raises(ToolError, match="TAG="):
        Images(tag=tag)


def test_releases_of_one_package_run_one_digest_and_the_migrating_one_is_first() -> None:
    digest = "sha256:" + "b" * 64
    found = releases(TOPOLOGY, "production", Images(digests={"trainers": digest}))
    running = [each.name for each in found if f"image.digest={digest}" in each.sets]
    assert running == ["trainers-commands", "trainers-queries"]


def test_a_bad_digest_is_refused() -> None:
    with pytest.raises(ToolError, match="digest of orders"):
        Images(digests={"orders": "sha256:abc"})


def test_an_unknown_environment_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ToolError, match="ENV=prod: unknown; use one of dev, production, staging"):
        releases(TOPOLOGY, "prod")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("prod", True), ("eu-production-1", True), ("gke_acme_PROD_a", True), ("live", True),
        ("kind-slipway", False), ("minikube", False), ("product-team", False), ("delivery", False),
    ],
)  # fmt: skip
def test_production_is_known_by_its_name(name: str, expected: bool) -> None:
    assert looks_like_production(name) is expected


@pytest.mark.parametrize(
    ("context", "namespace", "environment", "confirmed", "passes"),
    [
        ("kind-slipway", "slipway", "dev", "", True),
        ("kind-slipway", "slipway", "staging", "", False),
        ("kind-slipway", "slipway", "production", "kind-slipway", True),
        ("eu-prod", "slipway", "dev", "", False),
        ("kind-slipway", "shop-live", "dev", "", False),
        ("eu-prod", "slipway", "production", "us-prod", False),
        ("eu-prod", "slipway", "production", "eu-prod", True),
    ],
)
def test_what_looks_like_production_is_changed_only_when_it_was_named(
    context: str, namespace: str, environment: str, confirmed: str, passes: bool
) -> None:
    cluster = Cluster(context, None)  # type: ignore[arg-type]  # nothing is called
    if passes:
        deploy.guard(cluster, namespace, environment, confirmed)
    else:
        with pytest.raises(ToolError, match=f"CONTEXT={context}"):
            deploy.guard(cluster, namespace, environment, confirmed)


def kubeconfig(path: Path, server: str = "https://127.0.0.1:1") -> Path:
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
            }
        )
    )
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["deploy", "--env", "nowhere"], 2, "ENV=nowhere: unknown"),
        (
            ["deploy", "--service", "datastores", "--env", "production"],
            2,
            "SERVICE=datastores: unknown for ENV=production; use one of",
        ),
        (["rollout", "--service", "ordres"], 2, "SERVICE=ordres: unknown for ENV=dev; use one of"),
        (["deploy", "--tag", "a b"], 2, "TAG=a b"),
        (["deploy", "--digests", "/nowhere.json"], 2, "DIGESTS=/nowhere.json"),
        (["deploy", "--context", "there"], 2, "no context there; kubectl knows: here"),
        (["deploy"], 1, "the cluster of context here does not answer"),
        (["deploy", "--env", "staging"], 2, "CONTEXT=here"),
    ],
)
def test_bad_input_is_one_line(  # noqa: PLR0917
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION",
        str(kubeconfig(tmp_path / "config")),
    )
    assert deploy.main(arguments) == code
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_without_a_cluster_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none")
    )
    assert deploy.main(["deploy"]) == 2
    assert "make one with `make cluster`" in capsys.readouterr().err


def test_a_rollout_changes_the_image_and_nothing_else() -> None:
    """Where spans go, the registry and the environment are those of the deployment before."""
    tree = load()
    (orders,) = [r for r in releases(tree, "dev", Images(tag="1.4.0")) if r.name == "orders"]
    changed = orders.with_image()
    assert (changed.values, changed.reuses) == ((), True)
    assert changed.sets == ("image.tag=1.4.0", "image.digest=")
    digest = "sha256:" + "0" * 64
    pinned = Images(digests={"orders": digest})
    (orders,) = [r for r in releases(tree, "production", pinned) if r.name == "orders"]
    assert orders.with_image().sets == (f"image.digest={digest}",)
    (gateway,) = [r for r in releases(tree, "dev", Images(tag="1.4.0")) if r.name == "gateway"]
    elsewhere = Images(registry="registry.example", digests={"orders": digest})
    (items,) = [r for r in releases(tree, "production", elsewhere) if r.name == "items"]
    for nameless in (gateway, items):
        wrong = f"SERVICE={nameless.name}: TAG and DIGESTS name no image of it"
        with pytest.raises(ToolError, match=wrong):
            nameless.with_image()


def test_digests_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "digests.json"
    file.write_text(json.dumps({"orders": "sha256:" + "0" * 64}))
    assert deploy._digests(str(file)) == {"orders": "sha256:" + "0" * 64}
    file.write_text("[]")
    with pytest.raises(ToolError, match="no JSON object"):
        deploy._digests(str(file))


def test_helms_last_words_are_the_error_and_not_the_warnings() -> None:
    text = "WARNING: kubeconfig is group-readable\nError: UPGRADE FAILED: no\n  more\n"
    assert last_words(text) == "UPGRADE FAILED: no more"
