"""The cluster files: what Ray itself says of them, and what must never stand in them."""

import copy
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from ms_automl import search

ROOT = Path(__file__).parents[2]
RAY = ["ray_cluster.yaml", "clusters/gcp.yaml", "clusters/local.yaml"]
CLOUD = RAY[:2]
ALL = [*RAY, "clusters/kuberay.yaml"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def content(name):
    return yaml.safe_load(text(name))


def prepared(name):
    if name == "clusters/kuberay.yaml":
        cluster = kubernetes()["RayCluster"]
        cluster["metadata"]["namespace"] = "ms-automl"  # as Kubernetes adds it
        config = _derive_autoscaling_config_from_ray_cr(cluster)
        validate_config(config)
        return config
    config = prepare_config(copy.deepcopy(content(name)))
    validate_config(config)
    return config


def kubernetes():
    found = {}
    for one in yaml.safe_load_all(text("clusters/kuberay.yaml")):
        found.setdefault(one["kind"], one)
    return found


def strings(node):
    if isinstance(node, dict):
        node = [*node.keys(), *node.values()]
    if isinstance(node, list):
        return [value for one in node for value in strings(one)]
    return [str(node)]


def test_every_cluster_file_is_covered():
    found = {path.name for path in (ROOT / "clusters").glob("*.yaml")}
    assert found == {Path(name).name for name in ALL} - {"ray_cluster.yaml"}


@pytest.mark.parametrize("name", RAY)
def test_rays_loader_takes_the_file_and_adds_no_start_command_of_its_own(name):
    config = prepared(name)
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert config[key] == content(name)[key]
    assert not any("ray-wheels" in command for command in strings(config)), (
        "Ray's default installs a nightly build"
    )


@pytest.mark.parametrize("name", [*CLOUD, "clusters/kuberay.yaml", "clusters/Dockerfile"])
def test_what_was_never_run_says_so_first(name):
    first = text(name).splitlines()[0]
    assert "Never run for real" in first or "Never built for real" in first


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_open_to_the_world(name):
    said = strings(list(yaml.safe_load_all(text(name))))
    assert not any("0.0.0.0" in one or "::/0" in one for one in said)
    assert not any("LoadBalancer" in one or "NodePort" in one for one in said)


@pytest.mark.parametrize("name", RAY)
def test_the_dashboard_listens_on_loopback_and_everything_asks_for_the_token(name):
    config = content(name)
    (head,) = [one for one in config["head_start_ray_commands"] if "ray start" in one]
    (worker,) = [one for one in config["worker_start_ray_commands"] if "ray start" in one]
    assert "--dashboard-host=127.0.0.1" in head
    for command in (head, worker):
        assert "RAY_AUTH_MODE=token" in command and "--disable-usage-stats" in command
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "export RAY_AUTH_MODE=token" in text("clusters/environment.sh")


def test_no_security_group_is_left_to_ray_which_would_open_port_22():
    config = content("ray_cluster.yaml")
    assert all(kind["node_config"]["SecurityGroupIds"] for kind in config["available_node_types"].values())
    assert "security_group" not in config["provider"]
    rules = [line for line in text("docs/cluster.md").splitlines() if "authorize-security-group-ingress" in line]
    assert len(rules) == 2 and all("--cidr ME" in line or "--source-group SG" in line for line in rules)


@pytest.mark.parametrize("name", ALL)
def test_no_file_holds_a_secret(name):
    keys = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN|password|secret_?key|(?<![\w./-])[0-9a-f]{40,}", re.IGNORECASE)
    assert not any(keys.search(one) for one in strings(list(yaml.safe_load_all(text(name)))))


@pytest.mark.parametrize("name", [*CLOUD, "clusters/Dockerfile"])
def test_rays_version_is_the_pinned_one(name):
    (tag,) = set(re.findall(r"rayproject/ray:(\S+)", text(name)))
    assert tag == f"{PINS['ray']}-py311-gpu"


@pytest.mark.parametrize("name", RAY)
def test_hosts_install_the_pinned_versions(name):
    config = content(name)
    assert any("make install EXTRA=cluster" in command for command in config["setup_commands"])
    assert "pip install" not in " ".join(strings(config))
    assert "-c constraints.txt -e '.[$(EXTRA)]'" in text("Makefile")
    assert PINS["boto3"] and PINS["psycopg2-binary"]


@pytest.mark.parametrize("name", RAY)
def test_what_is_shipped_exists_and_is_what_the_install_needs(name):
    mounts = content(name)["file_mounts"]
    here = {source for source in mounts.values() if not source.startswith("~")}
    assert all((ROOT / source).exists() for source in here)
    assert all(target == f"~/ms_automl/{mounts[target]}" for target in mounts if mounts[target] in here)
    assert here >= {"Makefile", "pyproject.toml", "constraints.txt", "README.md", "LICENSE", "clusters"}
    assert here >= {"ms_automl", "search_spaces", "trainables", "analysis"}


@pytest.mark.parametrize("name", CLOUD)
def test_workers_come_and_go_spot_first_and_within_a_limit(name):
    config = prepared(name)
    head, spot, dear = (config["available_node_types"][kind] for kind in ("head", "spot", "on-demand"))
    assert config["idle_timeout_minutes"] <= 15 and config["provider"]["cache_stopped_nodes"] is False
    assert head["resources"]["CPU"] == 0 and "GPU" not in head["resources"]
    assert spot["min_workers"] == dear["min_workers"] == 0
    assert max(spot["max_workers"], dear["max_workers"]) <= config["max_workers"]
    assert "spot" in json.dumps(spot["node_config"]).lower()
    assert "spot" not in json.dumps(dear["node_config"]).lower()


@pytest.mark.parametrize("name", [*CLOUD, "clusters/kuberay.yaml"])
def test_rays_scheduler_takes_spot_machines_and_others_where_there_are_none(name):
    config = AutoscalingConfig(prepared(name), skip_content_hash=True)
    asked = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make({"CPU": 4, "GPU": 1})] * 2)

    def launched(**known):
        request = SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=asked,
            **known,
        )
        return {one.instance_type: one.count for one in ResourceDemandScheduler().schedule(request).to_launch}

    assert launched() == {"spot": 2}
    # As after a launch that failed.
    assert launched(recoverable_resource_availabilities={"spot": 0.0}) == {"on-demand": 2}


def test_kuberays_fields_are_those_of_its_definition():
    cluster = kubernetes()["RayCluster"]
    assert cluster["apiVersion"] == "ray.io/v1"
    spec = cluster["spec"]
    assert spec["rayVersion"] == PINS["ray"] and spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["idleTimeoutSeconds"] <= 900
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert set(groups) == {"spot", "on-demand"}
    for group in groups.values():
        assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"]
    for group in [spec["headGroupSpec"], *groups.values()]:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
    claims = {volume["persistentVolumeClaim"]["claimName"]
              for volume in spec["headGroupSpec"]["template"]["spec"]["volumes"]}  # fmt: skip
    kinds = list(yaml.safe_load_all(text("clusters/kuberay.yaml")))
    assert claims == {one["metadata"]["name"] for one in kinds if one["kind"] == "PersistentVolumeClaim"}


def test_the_network_policy_is_about_this_cluster():
    found = kubernetes()
    label = {"ray.io/cluster": found["RayCluster"]["metadata"]["name"]}
    policy = found["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == label and policy["policyTypes"] == ["Ingress"]
    (rule,) = policy["ingress"]
    assert rule["from"][0]["podSelector"]["matchLabels"] == label


@pytest.mark.parametrize("script", ["clusters/mlflow_server.sh", "clusters/environment.sh"])
def test_the_shell_scripts_are_valid(script):
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_mlflow_and_its_database_listen_on_loopback_and_a_socket_alone():
    script = text("clusters/mlflow_server.sh")
    assert "--host 127.0.0.1" in script and "listen_addresses=''" in script and "--auth-host=reject" in script


@pytest.mark.parametrize("name", [*ALL, "docs/cluster.md", "clusters/Dockerfile"])
def test_the_commands_that_are_named_exist(name):
    said = text(name)
    targets = set(re.findall(r"^([a-z-]+):.*##", text("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^ *|&& |RUN |`)make ([a-z-]+)", said, re.MULTILINE)) <= targets
    assert all((ROOT / path).exists() for path in re.findall(r"clusters/[\w.]+\w", said))
    known = search._parser().format_help()
    for command in re.findall(r"python -m ms_automl\.search ([^`'\n]*)", said):
        options = re.findall(r"--[a-z-]+", command)
        assert options and all(option in known for option in options), command
