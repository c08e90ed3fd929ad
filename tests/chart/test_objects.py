"""What the chart makes of its values."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from charts import CHART, NATIVE, ORDINARY, ROOT, Refused, container, environment, one, pods, render

DEMO = {"demo": {"enabled": True}}
STORES = ("registry", "log")
ON_NATS = {"replicas": 3, "config": {"store": "nats://nats.nats:4222?replicas=3"}}


def spec_of(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = one(objects, kind, name)["spec"]["template"]["spec"]
    return found


def test_by_default_there_are_two_stores_and_no_demo() -> None:
    found = sorted(
        (each["kind"], each["metadata"]["name"]) for each in render() if each["kind"] in ("StatefulSet", "Deployment", "Service")
    )
    services = ["pillion-log", "pillion-log-headless", "pillion-registry", "pillion-registry-headless"]
    assert found == [("Service", name) for name in services] + [("StatefulSet", "pillion-log"), ("StatefulSet", "pillion-registry")]


@pytest.mark.parametrize("name", STORES)
def test_a_stores_volume_is_kept_and_belongs_to_its_group(name: str) -> None:
    store = one(render({name: {"persistence": {"size": "7Gi", "storageClass": "fast"}}}), "StatefulSet", f"pillion-{name}")["spec"]
    [claim] = store["volumeClaimTemplates"]
    assert (claim["spec"]["storageClassName"], claim["spec"]["resources"]["requests"]["storage"]) == ("fast", "7Gi")
    assert store["template"]["spec"]["securityContext"]["fsGroup"] == 10001
    assert store["serviceName"] == f"pillion-{name}-headless"
    without = one(render({name: {"persistence": {"enabled": False}}}), "StatefulSet", f"pillion-{name}")["spec"]
    assert "volumeClaimTemplates" not in without
    assert {"name": "data", "emptyDir": {}} in without["template"]["spec"]["volumes"]


@pytest.mark.parametrize("name", STORES)
def test_replicas_share_a_store_in_nats_start_at_once_and_need_no_volume(name: str) -> None:
    store = one(render({name: ON_NATS}), "StatefulSet", f"pillion-{name}")["spec"]
    assert (store["replicas"], store["podManagementPolicy"], store.get("volumeClaimTemplates")) == (3, "Parallel", None)
    pod = store["template"]["spec"]
    server = container(pod, name)
    assert environment(server)["PILLION_STORE"] == "nats://nats.nats:4222?replicas=3"
    assert "/data" not in [mount["mountPath"] for mount in server["volumeMounts"]]
    assert "data" not in [volume["name"] for volume in pod["volumes"]]
    other = one(render({name: ON_NATS}), "StatefulSet", f"pillion-{'log' if name == 'registry' else 'registry'}")["spec"]
    assert (other["replicas"], len(other["volumeClaimTemplates"])) == (1, 1)


@pytest.mark.parametrize("name", STORES)
def test_replicas_are_spread_over_nodes_unless_the_values_say_otherwise(name: str) -> None:
    [spread] = spec_of(render({name: ON_NATS}), "StatefulSet", f"pillion-{name}")["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    assert spread["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == name
    mine = [{**spread, "topologyKey": "topology.kubernetes.io/zone"}]
    assert (
        spec_of(render({name: {**ON_NATS, "topologySpreadConstraints": mine}}), "StatefulSet", f"pillion-{name}")[
            "topologySpreadConstraints"
        ]
        == mine
    )
    assert "topologySpreadConstraints" not in spec_of(render(), "StatefulSet", f"pillion-{name}")


def test_a_log_service_reaches_nats_and_is_not_offered_while_it_does_not() -> None:
    objects = render({"log": ON_NATS})
    assert environment(container(spec_of(objects, "StatefulSet", "pillion-log"), "pillion"))["PILLION_CHECK"] == "http:/readyz"
    assert {"to": [{"namespaceSelector": {}}]} in one(objects, "NetworkPolicy", "pillion-log")["spec"]["egress"]
    assert {"to": [{"namespaceSelector": {}}]} not in one(render(), "NetworkPolicy", "pillion-log")["spec"]["egress"]


@pytest.mark.parametrize("name", STORES)
def test_replicas_with_a_store_each_are_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(Refused, match=rf"{name}\.replicas is 2, .* set {name}\.config\.store to an address of NATS"):
        render({name: {"replicas": 2}})


@pytest.mark.parametrize(("changed", "kept"), [("registry", "log"), ("log", "registry")])
def test_a_changed_configuration_restarts_only_what_it_is_for(changed: str, kept: str) -> None:
    before, after = render(DEMO), render({**DEMO, changed: {"config": {"log_level": "debug"}}})

    def pod(objects: list[dict[str, Any]], kind: str, name: str) -> Any:
        return one(objects, kind, name)["spec"]["template"]

    assert pod(before, "StatefulSet", f"pillion-{changed}") != pod(after, "StatefulSet", f"pillion-{changed}")
    assert one(after, "ConfigMap", f"pillion-{changed}")["data"] == {"config.yaml": "log_level: debug\n"}
    assert pod(before, "StatefulSet", f"pillion-{kept}") == pod(after, "StatefulSet", f"pillion-{kept}")
    for name in ("pillion-grading", "pillion-portal"):
        assert pod(before, "Deployment", name) == pod(after, "Deployment", name)


def test_no_pods_labels_name_a_version() -> None:
    for each in render(DEMO):
        if "template" in each.get("spec", {}):
            assert set(each["spec"]["selector"]["matchLabels"].items()) <= set(each["spec"]["template"]["metadata"]["labels"].items())
            assert "0.1.0" not in str(each["spec"]["template"]["metadata"]["labels"])


def test_the_token_is_made_kept_and_never_in_an_environment() -> None:
    secret = one(render(), "Secret", "pillion-token")
    assert secret["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert re.fullmatch(r"[A-Za-z0-9+/=]{56,60}", secret["data"]["token"])
    given = render({"token": {"existingSecret": "ours", "key": "t"}, **DEMO})
    assert not [each for each in given if each["kind"] == "Secret"]
    volumes = [volume for _, spec in pods(given) for volume in spec["volumes"] if "secret" in volume]
    assert len(volumes) == 6, "registry, log and its sidecar, both apps' sidecars, the test"
    assert {volume["secret"]["secretName"] for volume in volumes} == {"ours"}


@pytest.mark.parametrize(("version", "api"), [(ORDINARY, "policy/v1beta1"), (NATIVE, "policy/v1")])
def test_a_budget_is_of_the_api_that_the_server_has(version: str, api: str) -> None:
    budgets = [each for each in render({}, version) if each["kind"] == "PodDisruptionBudget"]
    assert [(each["apiVersion"], each["spec"]["maxUnavailable"]) for each in budgets] == [(api, 1)] * 2


def test_images_come_from_the_sites_own_registry() -> None:
    values = {**DEMO, "global": {"imageRegistry": "r.example.com:5000"}, "log": {"image": {"registry": "other.example.com", "tag": "7"}}}
    images = {each["image"] for _, spec in pods(render(values)) for each in spec["containers"] + spec.get("initContainers", [])}
    names = ("registry", "sidecar", "demo-grading", "demo-portal")
    assert images == {f"r.example.com:5000/pillion/{name}:0.1.0" for name in names} | {"other.example.com/pillion/log:7"}


def test_the_log_service_has_a_sidecar_that_makes_it_logservice() -> None:
    sidecar = container(spec_of(render({}, ORDINARY), "StatefulSet", "pillion-log"), "pillion")
    told = environment(sidecar)
    assert (told["PILLION_NAME"], told["PILLION_PORT"], told["PILLION_REGISTRY"]) == ("LogService", "4000", "http://pillion-registry:3000")


def test_the_demos_apps_require_what_they_use() -> None:
    objects = render(DEMO)
    needs = {name: environment(container(spec_of(objects, "Deployment", f"pillion-{name}"), "pillion")) for name in ("grading", "portal")}
    assert needs["grading"]["PILLION_REQUIRES"] == "LogService"
    assert needs["portal"]["PILLION_REQUIRES"] == "LogService,GradingService"


def test_who_may_talk_to_whom() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in render(DEMO) if each["kind"] == "NetworkPolicy"}
    assert set(policies) == {"pillion-registry", "pillion-log", "pillion-grading", "pillion-portal"}
    assert all(policy["policyTypes"] == ["Ingress", "Egress"] for policy in policies.values())
    [graded, watched] = policies["pillion-grading"]["ingress"]
    assert graded["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "portal"
    assert watched["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "registry"
    assert (graded["ports"][0]["port"], watched["ports"][0]["port"]) == (6000, 7070)
    assert not [each for each in render({"networkPolicy": {"enabled": False}}) if each["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize(
    "values",
    [
        {"registry": {"config": {"store": "sqlite:/data/other.db"}}},
        {"log": {"replicas": 0}},
        {"registri": {}},
        {"registry": {"image": {"tga": "x"}}},
        {"registry": {"config": {"hartbeat_interval": "1s"}}},
        {"registry": {"config": {"token_file": "/x"}}},
        {"registry": {"service": {"port": 0}}},
        {"sidecar": {"options": {"listen": "0.0.0.0:1"}}},
        {"demo": {"portal": {"terminationGracePeriodSeconds": 5}}},
        {"registry": {"extraEnv": [{"nam": "x"}]}},
        {"registry": {"ingress": {"enabled": True}}},
    ],
    ids=str,
)
def test_values_that_mean_nothing_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        render(values)


def table(title: str) -> set[str]:
    """Return the keys of a program's options, from the page that its own table makes."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    section = page.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return {flag.replace("-", "_") for flag in re.findall(r"^\| `--([a-z-]+)`", section, re.MULTILINE)}


def schema_keys(*path: str) -> set[str]:
    node = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    for key in path:
        node = node["properties"][key]
    return set(node["properties"])


def test_the_schema_knows_the_options_that_the_programs_have() -> None:
    assert schema_keys("registry", "config") == table("pillion registry") - {"listen", "member", "token_file"}
    assert schema_keys("log", "config") == table("pillion log") - {"listen", "token_file"}
    set_by_the_template = {"name", "port", "host", "registry", "requires", "check", "listen", "local", "advertise", "state_dir"}
    set_by_the_template |= {"spool_size", "project_dir", "pod", "token_file", "log_output"}  # the last is of `pillion run` alone
    assert schema_keys("sidecar", "options") == table("pillion sidecar, pillion run") - set_by_the_template
