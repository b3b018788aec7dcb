"""Start options: what a file or a deployment may say without keeping the nucleus from starting, and what is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nucleus import settings
from nucleus.core import errors


def write(root: Path, nucleus: Any, **system: Any) -> Path:
    for name in ("device.pem", "device.key", "ca.pem"):
        (root / name).touch()
    known = {
        "thingName": "t1",
        "certificateFilePath": "device.pem",
        "privateKeyPath": "device.key",
        "rootCaPath": str(root / "ca.pem"),
    }
    path = root / "config.yaml"
    content = {"system": known | system, "services": {"aws.greengrass.Nucleus": {"configuration": nucleus}}}
    path.write_text(yaml.safe_dump(content))
    return path


def test_read_when_full_then_ports_and_places(tmp_path: Path) -> None:
    wanted = {"iotDataEndpoint": "localhost", "greengrassDataPlaneEndpoint": "iotdata", "mqtt": {"port": 8884}}

    found = settings.read(write(tmp_path, wanted | {"greengrassDataPlanePort": "8444"}), tmp_path)

    assert found.cloud is not None
    assert (found.cloud.mqtt_port, found.cloud.data_plane_url) == (8884, "https://localhost:8444")
    assert found.cloud.certificate == tmp_path / "device.pem"


@pytest.mark.parametrize(
    ("nucleus", "key"),
    [
        ({"iotDataEndpoint": "h", "greengrassDataPlanePort": "soon"}, "greengrassDataPlanePort"),
        ({"iotDataEndpoint": "h", "greengrassDataPlanePort": 70_000}, "greengrassDataPlanePort"),
        ({"iotDataEndpoint": "h", "mqtt": {"port": [1]}}, "mqtt.port"),
        ({"iotDataEndpoint": "h", "mqtt": 8883}, "mqtt"),
        ("text", "configuration"),
    ],
)
def test_read_when_a_key_is_bad_then_the_error_names_it(tmp_path: Path, nucleus: Any, key: str) -> None:
    with pytest.raises(errors.NucleusError, match=r"config\.yaml") as refused:
        settings.read(write(tmp_path, nucleus), tmp_path)

    assert f": {key} must be" in refused.value.detail


@pytest.mark.parametrize("override", ["text", ["os"], 7, None])
def test_detect_platform_when_a_deployment_wrote_nonsense_then_the_nucleus_starts_anyway(override: Any) -> None:
    assert settings.detect_platform(override)["os"] == "linux"
