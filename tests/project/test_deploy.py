"""The files in deploy/: each is checked by the program or the published schema of its kind, where that is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

import hfpeer
from hfpeer.config.settings import KEYS

CHART, MANIFEST = "deploy/helm/hfpeer", "deploy/kubernetes/hfpeer.yaml"
SECONDS = 100.0
OTHER_VARIABLES = {"HFPEER_HOME", "HFPEER_REGISTRY_PASSWORD"}
"""Variables of a node that are no settings."""
OF_COMPOSE = {"HFPEER_IMAGE", "HFPEER_USER"}
"""Variables of compose.yaml itself."""
VARIANTS: dict[str, list[str]] = {
    "network of the machine": ["hostNetwork=true"],
    "without the endpoint": ["endpoint.enabled=false"],
    "settings and secrets": ["env.HFPEER_LIMIT_WAN_DOWN=100mbit", "envFromSecret=hfpeer-registry"],
    "a registry of images": ["image.repository=registry.example/hfpeer", "imagePullSecrets[0].name=pull"],
    "no podAnnotations": ["podAnnotations=null", "tolerations=null", "resources=null"],
}


def tool(name: str) -> str:
    """The path of a program. Skips the test where it is missing."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return found or pytest.skip(f"{name} is not installed")


def run(*words: str | Path, cwd: Path, code: int = 0, environ: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [*map(str, words)],
        cwd=cwd,
        env={**os.environ, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def render(root: Path, *values: str, code: int = 0) -> str:
    """The chart with these values, as Helm renders it."""
    settings = [word for value in values for word in ("--set", value)]
    return run(tool("helm"), "template", "hfpeer", CHART, *settings, cwd=root, code=code)


def documents(text: str) -> list[Any]:
    return sorted(
        (one for one in yaml.safe_load_all(text) if one), key=lambda one: (one["kind"], one["metadata"]["name"])
    )


# ---- the image


def test_the_containerfile_has_no_fault_that_its_linter_knows(root: Path) -> None:
    run(tool("hadolint"), "--failure-threshold", "style", "deploy/container/Containerfile", cwd=root)


def test_the_files_that_the_image_is_built_of_make_the_wheel(root: Path, tmp_path: Path) -> None:
    text = (root / "deploy/container/Containerfile").read_text()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for word in line.split()[:-1]]
    let_in = re.findall(r"^!(\S+)", (root / "deploy/container/Containerfile.dockerignore").read_text(), re.MULTILINE)
    assert sorted(copied) == sorted(let_in)
    for name in copied:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "out", cwd=tmp_path)
    assert list((tmp_path / "out").glob("hfpeer-*.whl"))


def test_the_compose_file_is_one(root: Path) -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="the schema of compose files is part of the deploy extra")
    text = (root / "deploy/container/compose.yaml").read_text()
    filled = re.sub(r"\$\{\w+(?::-([^}]*))?\}", lambda found: found[1] or "", text)  # compose does so first
    compose = compose_spec.PyCompose.from_yaml(filled)
    assert compose.service_names() == ["hfpeer"]
    service = yaml.safe_load(filled)["services"]["hfpeer"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and not service["user"].startswith("0")


# ---- the cluster


def test_the_manifest_follows_the_published_schema(root: Path) -> None:
    said = run(tool("kubernetes-validate"), "--strict", MANIFEST, cwd=root)
    assert said.count(" passed ") == len(documents((root / MANIFEST).read_text())) == 3


def test_the_manifest_is_the_chart_as_it_is_shipped(root: Path) -> None:
    assert documents((root / MANIFEST).read_text()) == documents(render(root)), "`just manifest` writes it anew"


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS)
def test_the_chart_follows_the_published_schema_with_other_values(
    root: Path, tmp_path: Path, values: list[str]
) -> None:
    run(tool("helm"), "lint", "--strict", CHART, cwd=root)
    (tmp_path / "rendered.yaml").write_text(render(root, *values))
    run(tool("kubernetes-validate"), "--strict", tmp_path / "rendered.yaml", cwd=root)


@pytest.mark.parametrize("value", ["user=0", "hostPath=models", "hostNetwork=perhaps", "endpont.enabled=true"])
def test_a_wrong_value_of_the_chart_is_refused(root: Path, value: str) -> None:
    assert value.split("=")[0].split(".")[0] in render(root, value, code=1)


def test_the_schema_of_the_values_is_one_and_accepts_them(root: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((root / CHART / "values.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    values = yaml.safe_load((root / CHART / "values.yaml").read_text())
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(values)) == []
    assert set(values) == set(schema["properties"]) - {"global"}


def test_the_chart_has_the_version_of_the_program(root: Path) -> None:
    chart = yaml.safe_load((root / CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (hfpeer.__version__, hfpeer.__version__)


def test_pods_run_without_rights_and_without_a_writable_root(root: Path) -> None:
    spec = next(one for one in documents((root / MANIFEST).read_text()) if one["kind"] == "DaemonSet")["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["terminationGracePeriodSeconds"] >= 10


# ---- machines


def test_the_ansible_role_is_one(root: Path, tmp_path: Path) -> None:
    environ = {"ANSIBLE_HOME": str(tmp_path), "HOME": str(tmp_path), "NO_COLOR": "1"}
    folder = root / "deploy/ansible"
    run(tool("ansible-playbook"), "--syntax-check", "-i", "localhost,", "playbook.yml", cwd=folder, environ=environ)


@pytest.mark.slow
def test_the_ansible_role_has_no_fault_that_its_linter_knows(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "deploy/ansible", tmp_path / "ansible")
    environ = {"ANSIBLE_HOME": str(tmp_path), "HOME": str(tmp_path), "NO_COLOR": "1"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    words = ("--offline", "--strict", "--profile", "production", ".")
    run(tool("ansible-lint"), *words, cwd=tmp_path / "ansible", environ={**environ, "PATH": path})


def test_the_ansible_role_writes_variables_that_systemd_and_a_shell_read_as_they_were(
    root: Path, tmp_path: Path
) -> None:
    jinja2 = pytest.importorskip("jinja2", reason="ansible brings it")
    value = 'a "quoted" \\ back, 100% of $HOME and `date`'
    folder = root / "deploy/ansible/roles/hfpeer/templates"
    environment = jinja2.Environment(trim_blocks=True, autoescape=False)
    secrets = environment.from_string((folder / "secrets.env.j2").read_text())
    (tmp_path / "secrets.env").write_text(secrets.render(hfpeer_secrets={"HFPEER_REGISTRY_PASSWORD": value}))
    script = f'. {tmp_path}/secrets.env && printf %s "$HFPEER_REGISTRY_PASSWORD"'  # systemd.exec(5): as in a shell
    assert run("sh", "-c", script, cwd=tmp_path) == value
    unit = environment.from_string((folder / "environment.conf.j2").read_text())
    lines = unit.render(hfpeer_environment={"HFPEER_PEERS": value}).splitlines()
    assert lines[2] == 'Environment="HFPEER_PEERS=a \\"quoted\\" \\\\ back, 100%% of $HOME and `date`"'


# ---- Prometheus and Grafana


def board_queries(root: Path) -> Iterator[str]:
    board = json.loads((root / "deploy/monitoring/grafana-board.json").read_text())
    for panel in board["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_the_alerts_are_rules_of_prometheus(root: Path) -> None:
    assert "SUCCESS: 6 rules found" in run(tool("promtool"), "check", "rules", "deploy/monitoring/alerts.yml", cwd=root)


def test_an_alert_fires_when_it_should_and_only_then(root: Path, tmp_path: Path) -> None:
    alone, lost, stuck = "HfpeerAlone", "HfpeerManyPeersGone", "HfpeerTransfersStandStill"
    series = [
        {"series": 'up{job="hfpeer", instance="a"}', "values": "1x180"},
        {"series": 'hfpeer_node_info{instance="a", job="hfpeer", version="1"}', "values": "1x180"},
        {"series": 'hfpeer_node_info{instance="b", job="hfpeer", version="1"}', "values": "1x180"},
        {"series": 'hfpeer_peers{instance="a", job="hfpeer", state="alive"}', "values": "0x180"},
        {"series": 'hfpeer_peers{instance="b", job="hfpeer", state="alive"}', "values": "5x180"},
        {"series": 'hfpeer_peers{instance="a", job="hfpeer", state="gone"}', "values": "0x180"},
        {"series": 'hfpeer_peers{instance="b", job="hfpeer", state="gone"}', "values": "9x180"},
        {"series": 'hfpeer_transfers{instance="a", job="hfpeer"}', "values": "1x180"},
        {"series": 'hfpeer_transfers{instance="b", job="hfpeer"}', "values": "1x180"},
        {"series": 'hfpeer_received_bytes_total{instance="a", job="hfpeer", kind="peer"}', "values": "0+100x180"},
        {"series": 'hfpeer_received_bytes_total{instance="b", job="hfpeer", kind="peer"}', "values": "7x180"},
    ]
    expected = [(alone, "a"), (lost, "b"), (stuck, "b"), ("HfpeerDown", None), ("HfpeerVersionsDiffer", None)]
    checks = [
        {
            "alertname": name,
            "eval_time": "150m",
            "exp_alerts": [{"exp_labels": _labels(name, instance)}] if instance else [],
        }
        for name, instance in expected
    ]
    shutil.copy(root / "deploy/monitoring/alerts.yml", tmp_path)
    rules = yaml.safe_load((tmp_path / "alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        del rule["annotations"]
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    tests = {
        "rule_files": ["alerts.yml"],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": checks}],
    }
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    run(tool("promtool"), "test", "rules", "tests.yml", cwd=tmp_path)


def _labels(name: str, instance: str) -> dict[str, str]:
    state = {"HfpeerAlone": {"state": "alive"}, "HfpeerManyPeersGone": {}}.get(name, {})
    return {"severity": "warning", "instance": instance, "job": "hfpeer", **state}


def test_prometheus_understands_each_query_of_the_board(root: Path, tmp_path: Path) -> None:
    def filled(query: str) -> str:
        return re.sub(r"\$(__range|__rate_interval)", "5m", query).replace("$job", ".*").replace("$instance", ".*")

    rules = [{"record": f"query{number}", "expr": filled(query)} for number, query in enumerate(board_queries(root))]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    run(tool("promtool"), "check", "rules", "rules.yml", cwd=tmp_path)


def test_the_panels_of_the_board_lie_beside_each_other(root: Path) -> None:
    board = json.loads((root / "deploy/monitoring/grafana-board.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


# ---- all of them


def test_every_variable_is_one_of_a_node(root: Path) -> None:
    known = {key.variable for key in KEYS.values()} | OTHER_VARIABLES
    for path in (path for path in (root / "deploy").rglob("*") if path.is_file()):
        named = set(re.findall(r"\bHFPEER_[A-Z_]*[A-Z]\b", path.read_text()))
        assert named - known - (OF_COMPOSE if path.name == "compose.yaml" else set()) == set(), path
