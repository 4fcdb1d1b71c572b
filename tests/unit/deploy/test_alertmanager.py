"""What compose's Alertmanager is told, checked by its own amtool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "deploy" / "alertmanager" / "config.sh"
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
MAIL = {"ALERT_EMAIL_TO": "a@b.c, d@e.f", "ALERT_EMAIL_FROM": "newt@b.c", "ALERT_SMTP": "mail.b.c:587"}
LOGIN = {"ALERT_SMTP_USER": "o'hara", "ALERT_SMTP_PASSWORD": 'it\'s: #1 "$HOME" {{ x }} \\n'}
# The image's shell, and this system's.
SHELLS = [shell for shell in (("busybox", "sh"), ("sh",)) if shutil.which(shell[0])]


def written(folder: Path, values: dict[str, str], shell: tuple[str, ...] = ("sh",)) -> subprocess.CompletedProcess[str]:
    everything = {"PATH": "/usr/bin:/bin", **dict.fromkeys(set(COMPOSE["services"]["alertmanager"]["environment"]), "")}
    command = [*shell, str(SCRIPT), str(folder / "alertmanager.yml")]
    return subprocess.run(command, env={**everything, **values}, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
@pytest.mark.parametrize("values", [{"ALERT_WEBHOOK": "https://x.y/z?a=1&b='2'"}, MAIL, {**MAIL, **LOGIN}])
def test_the_configuration_is_valid(values: dict[str, str], shell: tuple[str, ...], tmp_path: Path) -> None:
    done = written(tmp_path, values, shell)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "alertmanager.yml"
    assert path.stat().st_mode & 0o077 == 0
    (receiver,) = yaml.safe_load(path.read_text())["receivers"]
    told: list[dict[str, Any]] = [*receiver.get("webhook_configs", []), *receiver.get("email_configs", [])]
    names = ("url", "to", "from", "smarthost", "auth_username", "auth_password")
    assert [entry[name] for entry in told for name in names if name in entry] == list(values.values())
    assert all(entry["send_resolved"] for entry in told)
    checked = subprocess.run(["amtool", "check-config", str(path)], capture_output=True, text=True, timeout=30)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "alerts would go nowhere: set NEWT_COMPOSE_ALERT_WEBHOOK"),
        ({**MAIL, "ALERT_SMTP": ""}, "set NEWT_COMPOSE_ALERT_SMTP to HOST:PORT"),
        ({**MAIL, "ALERT_EMAIL_FROM": ""}, "set NEWT_COMPOSE_ALERT_EMAIL_FROM"),
        ({**MAIL, "ALERT_SMTP_TLS": "no"}, "is 'no', expected true or false"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, str], words: str, tmp_path: Path) -> None:
    done = written(tmp_path, values)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert words in line
    assert not (tmp_path / "alertmanager.yml").exists()


def test_prometheus_looks_for_composes_service() -> None:
    config = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    ((found,),) = (entry["dns_sd_configs"] for entry in config["alerting"]["alertmanagers"])
    service = COMPOSE["services"][found["names"][0]]
    assert service["profiles"] == ["alerts"]
    assert service["ports"][0].endswith(f":{found['port']}")
    assert f"--web.listen-address=:{found['port']} " in service["entrypoint"][-1]
    (mounted,) = (volume.split(":") for volume in service["volumes"] if volume.startswith("./"))
    assert ROOT / mounted[0] == SCRIPT.parent
    assert f"{mounted[1]}/{SCRIPT.name} " in service["entrypoint"][-1]
