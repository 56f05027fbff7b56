"""skaffold's files: current, valid by skaffold's own schema, and in agreement with the tree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from scripts import skaffold
from scripts.kube.releases import releases
from scripts.topology import ROOT, load

TOPOLOGY = load()
SERVICES = sorted(TOPOLOGY.services)
FILES = {path: yaml.safe_load((ROOT / path).read_text()) for path in skaffold.documents(TOPOLOGY)}


def service_file(name: str) -> dict[str, Any]:
    """The module of a service: its own, or that of its package."""
    return FILES[skaffold.module(TOPOLOGY[name].package)]


def release_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The release `name` in a module."""
    found = [each for each in document["deploy"]["helm"]["releases"] if each["name"] == name]
    assert len(found) == 1
    return dict(found[0])


def profile(document: dict[str, Any], name: str) -> dict[str, Any]:
    """A copy of `document` with one profile applied, as skaffold applies JSON patches."""
    changed = json.loads(json.dumps(document))
    found = next(each for each in document["profiles"] if each["name"] == name)
    for patch in found.get("patches", []):
        *parents, last = patch["path"].strip("/").split("/")
        place: Any = changed
        for step in parents:
            place = place[int(step) if isinstance(place, list) else step]
        if patch["op"] != "add":
            assert last in place, f"{patch['path']}: skaffold refuses to change what is not there"
        if patch["op"] == "remove":
            del place[last]
        else:
            place[last] = patch["value"]
    return changed


def test_the_files_are_those_of_the_tree():
    assert skaffold.main(["--check"]) == 0


def test_a_stale_file_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(skaffold, "HEADER", "# another\n")
    assert skaffold.main(["--check"]) == 1
    assert "services/orders/skaffold.yaml: not current" in capsys.readouterr().out


def test_the_root_names_every_module_in_the_order_of_deployment():
    paths = [each["path"].removeprefix("./") for each in FILES[skaffold.ROOT_FILE]["requires"]]
    plan = [release.name for release in releases(TOPOLOGY, "dev")]
    packages = [TOPOLOGY[name].package if name in SERVICES else name for name in plan]
    assert paths == list(dict.fromkeys(str(skaffold.module(name)) for name in packages))
    assert plan[0] == "datastores"
    assert plan[-1] == "gateway"
    for name in SERVICES:
        later = [peer for peer in TOPOLOGY[name].depends_on if plan.index(peer) > plan.index(name)]
        assert not later, f"{name} is deployed before {later}"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_what_a_file_names_exists(path: Path):
    folder = (ROOT / path).parent
    document = FILES[path]
    for name in skaffold.PROFILES:
        changed = profile(document, name)
        for release in changed.get("deploy", {}).get("helm", {}).get("releases", []):
            assert (folder / release["chartPath"] / "Chart.yaml").is_file()
            assert release["valuesFiles"]
            for values in release["valuesFiles"]:
                assert (folder / values).is_file(), values
        for artifact in changed.get("build", {}).get("artifacts", []):
            context = folder / artifact.get("context", ".")
            dockerfile = (context / artifact["docker"]["dockerfile"]).read_text()
            assert f" AS {artifact['docker']['target']}\n" in dockerfile
            for argument in artifact["docker"]["buildArgs"]:
                assert re.search(rf"(?m)^ARG {argument}\b", dockerfile), argument


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("environment", ["dev", "staging", "production"])
def test_a_module_installs_what_make_deploy_installs(name: str, environment: str):
    document = service_file(name)
    if environment != "dev":
        document = profile(document, environment)
    release = release_of(document, name)
    plan = next(each for each in releases(TOPOLOGY, environment) if each.name == name)
    folder = (ROOT / skaffold.module(TOPOLOGY[name].package)).parent
    assert [(folder / file).resolve() for file in release["valuesFiles"]] == list(plan.values)
    assert (folder / release["chartPath"]).resolve() == plan.chart


@pytest.mark.parametrize("name", SERVICES)
def test_the_image_that_is_built_is_the_one_that_is_installed(name: str):
    """Skaffold names the variables of an image by its name, with _ for what is no letter."""
    document = service_file(name)
    artifact = document["build"]["artifacts"][0]
    assert artifact["image"] == TOPOLOGY[name].image
    variable = artifact["image"].replace("/", "_").replace("-", "_")
    templates = release_of(document, name)["setValueTemplates"]
    # Another repository in the values would hide the image from skaffold, and from its sync.
    assert templates == {"image.tag": f"{{{{.IMAGE_TAG_{variable}}}}}"}
    # What is pushed has the registry's name, and skaffold leaves names with a digest as they are.
    for environment in ("staging", "production"):
        pushed = release_of(profile(document, environment), name)["setValueTemplates"]
        assert pushed == {
            "image.repository": f"{{{{.IMAGE_REPO_{variable}}}}}",
            "image.tag": f"{{{{.IMAGE_TAG_{variable}}}}}",
            "image.digest": f"{{{{.IMAGE_DIGEST_{variable}}}}}",
        }


@pytest.mark.parametrize("name", SERVICES)
def test_skaffold_dev_builds_images_that_reload_and_runs_the_reloader(name: str):
    changed = profile(service_file(name), "dev")
    assert changed["build"]["artifacts"][0]["docker"]["target"] == "dev"
    values = release_of(changed, name)["setValues"]
    assert values["command"] == ["python", "/opt/reload/reload.py", "serve"]


@pytest.mark.parametrize("name", SERVICES)
def test_python_files_of_a_service_and_the_chassis_are_synced_to_where_the_reloader_looks(
    name: str,
):
    folder, package = TOPOLOGY[name].package, TOPOLOGY[name].module
    rules = service_file(name)["build"]["artifacts"][0]["sync"]["manual"]
    for file, wanted in (
        (f"services/{folder}/{package}/main.py", f"/tmp/app/{package}/main.py"),
        ("services/chassis/chassis/http/peer.py", "/tmp/app/chassis/http/peer.py"),
    ):
        assert (ROOT / file).is_file()
        places = [
            f"{rule['dest']}/{file.removeprefix(rule['strip'])}"
            for rule in rules
            if fnmatch(file, rule["src"].replace("**/", "*"))
        ]
        assert places == [wanted]


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize("environment", ["staging", "production"])
def test_guarded_environments_push_and_run_the_digest(name: str, environment: str):
    changed = profile(service_file(name), environment)
    assert changed["build"]["local"]["push"] is True
    templates = release_of(changed, name)["setValueTemplates"]
    assert templates["image.digest"].startswith("{{.IMAGE_DIGEST_")


def test_an_image_is_built_in_one_module():
    """Skaffold refuses an image that two modules build."""
    built = [
        artifact["image"]
        for document in FILES.values()
        for artifact in document.get("build", {}).get("artifacts", [])
    ]
    assert len(built) == len(set(built)) == len(TOPOLOGY.packages) + 1


def test_production_has_no_default_base_image():
    """A tag can be moved: whoever builds for production names the base, by digest."""
    base = profile(service_file("orders"), "production")["build"]["artifacts"][0]["docker"]
    assert base["buildArgs"]["BASE"] == "{{.SLIPWAY_BASE_IMAGE}}"


def test_datastores_are_for_development_only():
    module = FILES[skaffold.module("datastores")]
    assert "helm" in profile(module, "kind")["deploy"]
    for environment in ("staging", "production"):
        assert "helm" not in profile(module, environment)["deploy"]


def test_the_smoke_test_is_a_job_that_a_restricted_namespace_takes():
    [case] = FILES[skaffold.ROOT_FILE]["verify"]
    path = case["executionMode"]["kubernetesCluster"]["jobManifestPath"]
    job = yaml.safe_load((ROOT / path).read_text())
    spec = job["spec"]["template"]["spec"]
    [container] = spec["containers"]
    assert container["image"] == case["container"]["image"] == skaffold.SMOKE
    assert container["name"] == case["container"]["name"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.skipif(shutil.which("skaffold") is None, reason="needs skaffold")
@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_is_valid_by_the_schema_of_skaffold(path: Path):
    said = subprocess.run(
        ["skaffold", "schema", "get", skaffold.API], capture_output=True, text=True, check=True
    )
    jsonschema.Draft7Validator(json.loads(said.stdout)).validate(FILES[path])
