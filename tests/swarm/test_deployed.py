"""Nodes with the environment of the manifest in deploy/, without multicast, asked as a cluster asks them."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fakes.machine import Machine, Machines
from fakes.network import namespaces
from fakes.network.dns import PROGRAM, DnsServer
from fakes.network.lan import Lan, why_not

DEPLOY = Path(__file__).parents[2] / "deploy"
NAMESPACE = "models"
LABELS_OF_PROMETHEUS = {"job", "instance"}


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with Machines(tmp_path / "machines") as machines:
        yield machines


def daemonset() -> Any:
    manifests = yaml.safe_load_all((DEPLOY / "kubernetes/hfpeer.yaml").read_text())
    return next(one for one in manifests if one["kind"] == "DaemonSet")["spec"]["template"]["spec"]


def environ(node_name: str) -> dict[str, str]:
    """The environment of a pod on a machine, as Kubernetes fills it in."""
    fields = {"spec.nodeName": node_name, "metadata.namespace": NAMESPACE}
    found: dict[str, str] = {}
    for variable in daemonset()["containers"][0]["env"]:
        text = variable.get("value") or fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
        found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], text)
    return {**found, "HFPEER_UPSTREAMS": ""}


@pytest.mark.root
@pytest.mark.skipif(bool(why_not(PROGRAM, "curl")), reason=f"no cluster can be played: {why_not(PROGRAM, 'curl')}")
def test_the_pods_of_the_manifest_find_each_other_and_answer_probes_services_and_prometheus(
    machines: Machines, tmp_path: Path
) -> None:
    with Lan(3) as lan:
        first, second, third = lan.hosts
        for host in lan.hosts:
            host.block_multicast()
            namespaces.use_dns(host.namespace, third.ip)
        with DnsServer(third, tmp_path, {f"hfpeer.{NAMESPACE}.svc": [first.ip, second.ip]}, domain="svc"):
            pods = [machines.make(f"node-{host.name}", host=host) for host in (first, second)]
            for pod in pods:
                pod.environ.update(environ(pod.name))
                pod.start()
            pods[0].wait_until_it_knows(pods[1])
            pods[1].wait_until_it_knows(pods[0])
            assert [peer.found_by for peer in pods[0].peers()] == [f"dns:hfpeer.{NAMESPACE}.svc:9437"]

            def asked(path: str, host_name: str = "") -> str:
                """The status of an answer to another machine, which is the kubelet, a pod or Prometheus."""
                name = ["-H", f"Host: {host_name}"] if host_name else []
                url = f"http://{first.ip}:9438{path}"
                return third.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *name, url]).stdout

            probe = daemonset()["containers"][0]["livenessProbe"]["httpGet"]["path"]
            assert asked(probe) == asked("/metrics") == "200"
            for service in ("hfpeer-endpoint", f"hfpeer-endpoint.{NAMESPACE}", f"hfpeer-endpoint.{NAMESPACE}.svc"):
                assert asked(probe, f"{service}:9438") == "200"
            assert asked("/api/models/nobody/nothing", "elsewhere.example") != "200"


def metrics_of(machine: Machine) -> dict[str, set[str]]:
    """The names of a node's metrics, each with the names of its labels."""
    with urllib.request.urlopen(f"http://{machine.status().listeners['endpoint']}/metrics", timeout=20) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def test_alerts_and_the_board_ask_for_metrics_that_a_node_has(machines: Machines) -> None:
    machine = machines.make("measured", peers=["127.0.0.9"])
    machine.start()
    known = metrics_of(machine)
    rules = yaml.safe_load((DEPLOY / "monitoring/alerts.yml").read_text())["groups"][0]["rules"]
    board = json.loads((DEPLOY / "monitoring/grafana-board.json").read_text())
    queries = [rule["expr"] for rule in rules]
    queries += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [one["definition"] for one in board["templating"]["list"] if "definition" in one]
    labels = set().union(*known.values()) | LABELS_OF_PROMETHEUS
    for query in queries:
        named = set(re.findall(r"\bhfpeer_\w+", query))
        assert named <= set(known), query
        assert named or "up{" in query, query
        selected = set(re.findall(r"(\w+)\s*(?:=~|!=|=)\s*\"", query))
        grouped = {word for by in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for word in re.findall(r"\w+", by)}
        assert selected | grouped <= labels, query
    # and each metric is on the board or in an alert
    assert {name for name in known if name.startswith("hfpeer_") and name not in " ".join(queries)} == set()
