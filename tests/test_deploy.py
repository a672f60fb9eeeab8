"""Every way to deploy starts the same three processes, and keeps what the pages promise."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from tree import ROOT, project, read, under

from api.codes import CODES
from tasks.settings import Settings

PROCFILE = dict(line.split(": ", 1) for line in read("Procfile").splitlines())
DOCKERFILE = read("deploy/Dockerfile")
COMPOSE = read("deploy/compose.yaml")
NGINX = read("deploy/nginx.conf")
UNITS = {path.rpartition("ledgerline-")[2].removesuffix(".service"): path for path in under("deploy/systemd")}
MIB = 1024 * 1024


# The Procfile's commands ----------------------------------------------------------------------------


def test_the_image_starts_the_api_unless_it_is_told_otherwise() -> None:
    (command,) = re.findall(r"^CMD (.+)$", DOCKERFILE, re.MULTILINE)
    assert json.loads(command) == shlex.split(PROCFILE["web"])


def test_compose_has_a_service_for_each_process_with_its_command() -> None:
    assert {name: service["command"] for name, service in compose()["services"].items()} == PROCFILE


def test_systemd_has_a_unit_for_each_process_with_its_command() -> None:
    started = {name: unit(name)["Service"]["ExecStart"] for name in UNITS}
    assert started == {name: [f"/usr/bin/env {command}"] for name, command in PROCFILE.items()}


def test_no_other_file_starts_anything() -> None:
    known = {"deploy/Dockerfile", "deploy/alerts.yaml", "deploy/compose.yaml", "deploy/nginx.conf", *UNITS.values()}
    assert set(under("deploy")) == known


# The image ------------------------------------------------------------------------------------------


def test_the_image_does_not_run_as_root() -> None:
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    user = re.findall(r"^USER (\S+)$", last_stage, re.MULTILINE)[-1]
    uid = re.search(rf"^RUN useradd .*--uid (\d+) .*\b{user}$", last_stage, re.MULTILINE)
    assert uid is not None
    assert int(uid[1]) >= 1000
    assert last_stage.index(f"USER {user}") > last_stage.rindex("\nCOPY"), "what the image holds is not the user's"


def test_the_image_is_made_of_what_is_there_and_leaves_tools_behind() -> None:
    assert DOCKERFILE.count("\nFROM ") == 2
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    assert {source for source in sources if not (ROOT / source).exists()} == set()
    assert sources >= {"api", "tasks", "sql", "supabase/migrations", "requirements.txt", "pyproject.toml"}
    ignored = set(read(".dockerignore").splitlines())
    assert sources & ignored == set()


def test_the_image_installs_what_is_locked_on_a_python_that_will_do() -> None:
    assert "--require-hashes -r requirements.txt" in DOCKERFILE
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"python:3.11-slim"}
    assert project()["project"]["requires-python"] == ">=3.11"


# Compose --------------------------------------------------------------------------------------------


def test_compose_migrates_before_anything_else_starts() -> None:
    for name in ("web", "worker"):
        assert compose()["services"][name]["depends_on"] == {"release": {"condition": "service_completed_successfully"}}


def test_compose_sets_only_what_is_a_setting_and_asks_for_the_database() -> None:
    services = compose()["services"].values()
    for service in services:
        environment = service["environment"]
        assert {name.lower() for name in environment} <= set(Settings.model_fields)
        assert environment["DATABASE_URL"].startswith("${DATABASE_URL:?")
        assert {name for name, text in environment.items() if not text.startswith(f"${{{name}:")} == set()


def test_compose_gives_the_processes_no_right_they_do_not_need() -> None:
    for service in compose()["services"].values():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert compose()["services"]["web"]["ports"] == ["127.0.0.1:8000:8000"]


@pytest.mark.parametrize("name", ["web", "worker"])
def test_processes_get_the_time_to_stop_that_they_may_take(name: str) -> None:
    drain_s = Settings.model_fields["drain_timeout_s"].default
    assert int(compose()["services"][name]["stop_grace_period"].removesuffix("s")) > drain_s
    assert int(unit(name)["Service"]["TimeoutStopSec"][0]) > drain_s
    assert unit(name)["Service"]["KillMode"] == ["mixed"]


# systemd --------------------------------------------------------------------------------------------


def test_units_start_after_the_release_and_are_started_again_when_they_end() -> None:
    for name in ("web", "worker"):
        assert "ledgerline-release.service" in unit(name)["Unit"]["After"][0]
        assert "ledgerline-release.service" in unit(name)["Unit"]["Wants"][0]
        assert unit(name)["Service"]["Restart"] == ["always"]
    assert unit("release")["Service"]["Type"] == ["oneshot"]


@pytest.mark.parametrize("name", sorted(UNITS))
def test_units_run_as_a_user_without_rights(name: str) -> None:
    service = unit(name)["Service"]
    assert service["User"] == ["ledgerline"]
    assert service["NoNewPrivileges"] == ["true"]
    assert service["ProtectSystem"] == ["strict"]
    assert "STORAGE_PATH=/var/lib/ledgerline/storage" in service["Environment"][0]
    assert service["StateDirectory"] == ["ledgerline"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units() -> None:
    said = subprocess.run(
        ["systemd-analyze", "verify", *(str(ROOT / path) for path in UNITS.values())], capture_output=True, text=True
    )
    assert (said.returncode, [line for line in said.stderr.splitlines() if "ledgerline" in line]) == (0, [])


# nginx ----------------------------------------------------------------------------------------------


def test_nginx_lets_through_what_the_api_accepts_so_that_the_api_refuses() -> None:
    sizes = [int(size) * MIB for size in re.findall(r"client_max_body_size (\d+)m;", NGINX)]
    most = ("max_body_bytes", "max_upload_bytes", "max_batch_bytes", "max_direct_upload_bytes")
    for size, setting in zip(sizes, most, strict=True):
        assert size > Settings.model_fields[setting].default, setting
    # A file comes in a form.
    assert sizes[1] > Settings.model_fields["max_upload_bytes"].default + MIB


def test_nginx_waits_longer_than_a_long_poll_and_keeps_connections_shorter_than_gunicorn() -> None:
    read_timeout = re.search(r"proxy_read_timeout (\d+)s;", NGINX)
    kept = re.search(r"keepalive_timeout (\d+)s;", NGINX)
    gunicorn = re.search(r"^keepalive = (\d+)$", read("api/gunicorn.py"), re.MULTILINE)
    assert read_timeout
    assert kept
    assert gunicorn
    assert int(read_timeout[1]) > Settings.model_fields["max_wait_s"].default
    assert int(kept[1]) < int(gunicorn[1])


def test_nginx_refuses_in_the_envelope_with_codes_that_are_documented() -> None:
    refusals = re.findall(r"return (\d+) '(\{.+\})';", NGINX)
    assert len(refusals) == 3
    page = read("docs/deploy.md")
    for status, text in refusals:
        error = json.loads(text)["error"]
        assert set(error) == {"code", "message", "details"}
        assert error["message"].endswith(".")
        if error["code"] in CODES:
            assert CODES[error["code"]].status == int(status)
        else:
            assert f"`{error['code']}`" in page


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE))


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """A unit's sections; names may come several times."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in read(UNITS[name]).splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections
