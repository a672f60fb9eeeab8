"""The command as people meet it: its words, its refusals, its small files."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import jwt
import psycopg
import pytest
from scripted_api import AT, answer, refuse, scripted_api
from tree import ROOT

from tasks.command import development
from tasks.command.access import Access
from tasks.command.console import seconds, size
from tasks.command.environment import complete, find_settings
from tasks.command.jobs import read_params
from tasks.command.program import COMMANDS, program, run
from tasks.command.state import Running, StateFolder
from tasks.errors import Refused
from tasks.settings import Settings, SettingsInvalid


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    """A state folder in an empty working directory, with no setting given."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("LEDGERLINE_URL", "LEDGERLINE_TOKEN", "LEDGERLINE_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    folder = StateFolder(tmp_path / ".ledgerline")
    folder.make()
    return folder


@pytest.fixture
def running(state: StateFolder) -> Iterator[Running]:
    """What an `up` would leave in the state folder while it runs."""
    lock = state.lock()
    running = Running("http://127.0.0.1:9", os.getpid())
    state.announce(running)
    state.write_key("the-key")
    yield running
    os.close(lock)


# Words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_with_the_first_sentence_of_its_help(name: str) -> None:
    command = program.get_command(click.Context(program), name)
    assert command is not None
    assert (command.help or "").split("\n\n")[0].replace("\n", " ") == COMMANDS[name][1]


def test_help_is_printed_without_loading_a_single_command() -> None:
    found = "[m for m in sys.modules if m in ('httpx', 'rich', 'psycopg')]"
    code = f"import sys; from tasks.command.program import run; run(['--help']); print({found})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert all(name in ran.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", ["submit", "watch", "jobs", "artifacts"])
def test_asking_the_api_loads_neither_the_engine_nor_the_database(name: str) -> None:
    code = (
        "import sys, importlib; from tasks.command.program import COMMANDS;"
        f"importlib.import_module(COMMANDS['{name}'][0].split(':')[0]);"
        "heavy = ('tasks.engine', 'tasks.pipelines', 'tasks.worker', 'psycopg', 'procrastinate', 'flask', 'pypdfium2');"
        "print([m for m in heavy if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ran.stdout.strip() == "[]"


def test_numbers_are_said_as_people_say_them() -> None:
    assert [seconds(s) for s in (0.04, 59.94, 61, 3725)] == ["0.0 s", "59.9 s", "1 min 01 s", "1 h 02 min"]
    assert [size(n) for n in (0, 1023, 1024, 5 * 1024**2, 3 * 1024**3)] == [
        "0 bytes", "1023 bytes", "1.0 KiB", "5.0 MiB", "3.0 GiB",
    ]  # fmt: skip


# Settings -----------------------------------------------------------------------------------------------


def test_wrong_settings_are_listed_at_once_and_end_with_two(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://x")
    monkeypatch.setenv("PORT", "many")
    monkeypatch.setenv("STORAGE", "floppy")
    assert run(["migrate"]) == 2
    said = capsys.readouterr().err
    assert "PORT:" in said
    assert "STORAGE:" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["migrate", "worker", "settings"])
def test_without_a_database_a_command_says_what_is_missing(
    name: str, state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([name]) == 2
    assert f"DATABASE_URL: not set, and no `ledgerline up` runs in {state.path}" in capsys.readouterr().err


def test_up_refuses_wrong_settings_before_it_starts_anything(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "many")
    monkeypatch.setenv("LEASE_S", "2")
    assert run(["up"]) == 2
    assert "PORT:" in capsys.readouterr().err
    assert not state.postgres.exists()


def test_once_without_a_sample_is_a_wrong_use(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["up", "--once"]) == 2
    assert "--once needs --sample" in capsys.readouterr().err


def test_secrets_are_named_and_not_shown(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://somebody:quiet@db/x")
    monkeypatch.setenv("LINK_SECRET", "quieter")
    assert run(["settings"]) == 0
    shown = capsys.readouterr().out
    assert all(name.upper() in shown for name in Settings.model_fields)
    assert "quiet" not in shown


def test_what_is_given_wins_over_what_up_would_fill_in(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "theirs")
    monkeypatch.setenv("STORAGE_PATH", "elsewhere")
    completed = complete(state, {"PORT": "1234"})
    assert completed.values["JWT_SECRET"] == "theirs"
    assert completed.values["STORAGE_PATH"] == "elsewhere"
    assert completed.values["PORT"] == "1234"
    assert completed.ours == {"LINK_SECRET"}


def test_a_dot_env_file_counts_as_given_and_the_environment_wins(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(".env").write_text("LOG_LEVEL=DEBUG\nDEPLOY=from-file\nJWKS_URL=http://localhost/jwks\nJWT_ISSUER=x\n")
    monkeypatch.setenv("DEPLOY", "from-environment")
    completed = complete(state, {"DATABASE_URL": "postgresql://x"})
    assert completed.load().log_level == "DEBUG"
    assert completed.load().deploy == "from-environment"
    assert "JWT_SECRET" not in completed.values


def test_commands_use_the_settings_of_the_running_up_where_nothing_is_given(
    state: StateFolder, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.write_settings({"DATABASE_URL": "postgresql://up", "LINK_SECRET": "x", "LOG_LEVEL": "ERROR"})
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    found = find_settings(state)
    assert (found.direct_url, found.log_level) == ("postgresql://up", "DEBUG")


def test_settings_of_an_up_that_is_gone_are_not_used(state: StateFolder) -> None:
    state.write_settings({"DATABASE_URL": "postgresql://up", "LINK_SECRET": "x"})
    with pytest.raises(SettingsInvalid, match="DATABASE_URL"):
        find_settings(state)


# The state folder ---------------------------------------------------------------------------------------


def test_secrets_are_made_once_and_for_the_owner_only(state: StateFolder) -> None:
    assert state.secrets() == state.secrets()
    state.write_key("k")
    state.write_settings({})
    modes = {
        name: stat.S_IMODE((state.path / name).stat().st_mode) for name in ("secrets.json", "key", "settings.json")
    }
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700


def test_a_second_up_in_the_same_folder_is_told_where_the_first_one_is(
    state: StateFolder, running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["up"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("already_running: ")
    assert f"at {running.url} (process {os.getpid()})" in said


def test_an_up_that_was_killed_counts_as_gone(state: StateFolder) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from tasks.command.state import Running, StateFolder\n"
        "state = StateFolder(Path(sys.argv[1])); state.lock(); state.announce(Running('http://x', os.getpid()))\n"
        "print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(state.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as up:
        assert up.stdout is not None
        assert up.stdout.readline() == b"locked\n"
        assert state.running() == Running("http://x", up.pid)
        up.kill()
        up.wait()
    assert state.running() is None
    os.close(state.lock())


def test_a_state_folder_that_cannot_be_made_is_said(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").write_text("")
    assert run(["up", "--state", "file/below"]) == 1
    assert capsys.readouterr().err.startswith("state_unwritable: ")


def test_a_spoilt_secrets_file_is_said_and_not_overwritten(state: StateFolder) -> None:
    (state.path / "secrets.json").write_text("{")
    assert run(["up"]) == 1
    assert (state.path / "secrets.json").read_text() == "{"


# The development user -----------------------------------------------------------------------------------


def test_the_development_key_is_a_token_as_supabase_signs_it() -> None:
    secret = "s" * 64
    token = development.issue_key(secret, development.ISSUER)
    claims = jwt.decode(token, secret, algorithms=["HS256"], audience="authenticated", issuer=development.ISSUER)
    assert claims["sub"] == str(development.USER)
    assert claims["role"] == "authenticated"
    assert claims["exp"] > time.time() + 300 * 86_400
    assert development.is_good(token, secret, development.ISSUER)
    assert not development.is_good(token, "t" * 64, development.ISSUER)
    assert not development.is_good(token, secret, "https://another/auth/v1")
    assert not development.is_good("nonsense", secret, development.ISSUER)


def test_the_development_user_owns_one_tenant_however_often_up_starts(
    connection: psycopg.Connection[dict[str, object]],
) -> None:
    development.settle(connection)
    development.settle(connection)
    found = connection.execute("select tenant_id, role from public.members where user_id = %s", [development.USER])
    assert found.fetchall() == [{"tenant_id": development.TENANT, "role": "owner"}]


# The API ------------------------------------------------------------------------------------------------


def test_without_an_api_a_command_says_where_to_get_one(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs"]) == 1
    assert capsys.readouterr().err.startswith("api_unknown: No `ledgerline up` runs in ")


def test_the_development_key_is_shown_to_the_api_of_up_and_to_nobody_else(state: StateFolder, running: Running) -> None:
    assert Access(state).find().token == "the-key"
    assert Access(state, running.url + "/").find().token == "the-key"
    assert Access(state, "http://elsewhere", "mine").find().token == "mine"
    with pytest.raises(Refused, match="token_missing"):
        Access(state, "http://elsewhere").find()


def test_a_member_of_several_tenants_says_which_one(state: StateFolder) -> None:
    with scripted_api(answer({"jobs": [], "next_cursor": None})) as api:
        assert run(["jobs", "--url", api.url, "--token", "t", "--tenant", "01931c20"]) == 0
    assert api.requests[0][2]["x-tenant-id"] == "01931c20"


def test_a_long_list_is_fetched_page_by_page(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    job = {"status": "queued", "stage": "initializing", "pipeline": "p", "error": None, "created_at": AT}
    job |= {"progress": {"percent": 0}}
    pages = [
        answer({"jobs": [job | {"id": f"job-{n}"} for n in range(100)], "next_cursor": "more"}),
        answer({"jobs": [job | {"id": "job-100"}], "next_cursor": None}),
    ]
    with scripted_api(*pages) as api:
        assert run(["jobs", "--limit", "150", "--url", api.url, "--token", "t"]) == 0
    assert [path for _, path, _ in api.requests] == [
        "/api/v1/jobs?limit=100", "/api/v1/jobs?cursor=more&limit=50",
    ]  # fmt: skip
    assert "job-100" in capsys.readouterr().out


def test_an_api_that_does_not_answer_is_a_sentence(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    assert run(["jobs", "--url", f"http://127.0.0.1:{port}", "--token", "t"]) == 1
    assert capsys.readouterr().err == (
        f"api_unreachable: The API at http://127.0.0.1:{port} does not answer. Is it running?\n"
    )


@pytest.mark.parametrize("url", ["ftp://somewhere", "somewhere", "http://host:port"])
def test_a_url_that_is_none_is_a_sentence(url: str, state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["jobs", "--url", url, "--token", "t"]) == 1
    assert capsys.readouterr().err.startswith("url_invalid: ")


def test_what_the_api_refuses_is_told_with_its_code_and_its_sentence(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_api(refuse(401, "token_expired", "Please sign in again.")) as api:
        assert run(["jobs", "--url", api.url, "--token", "t"]) == 1
    assert capsys.readouterr().err == "token_expired: Please sign in again.\n"


def test_an_answer_that_is_not_ours_is_a_sentence(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted_api(lambda asked: asked.say(502, "text/html", "<h1>Bad Gateway</h1>")) as api:
        assert run(["jobs", "--url", api.url, "--token", "t"]) == 1
    assert capsys.readouterr().err == "unexpected_answer: The API answered with status 502.\n"


def test_one_file_that_is_refused_does_not_keep_the_others_from_being_done(
    state: StateFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("bad.pdf", "good.txt"):
        Path(name).write_text("text")
    refused = refuse(415, "kind_unknown", "This is not a document.")
    with scripted_api(refused, answer({"id": "d"}, 201), answer({"id": "j"}, 202)) as api:
        assert run(["submit", "bad.pdf", "absent.pdf", "good.txt", "--url", api.url, "--token", "t"]) == 1
    said = capsys.readouterr()
    assert "bad.pdf: kind_unknown: This is not a document." in said.err
    assert "absent.pdf: file_unreadable: " in said.err
    assert "good.txt: submitted as job j" in said.out


def test_parameters_are_json_or_text() -> None:
    assert read_params(["a=1", "b=true", "c=some text", 'd=["x"]', "e="]) == {
        "a": 1, "b": True, "c": "some text", "d": ["x"], "e": "",
    }  # fmt: skip


def test_a_parameter_without_a_value_is_a_wrong_use(state: StateFolder, capsys: pytest.CaptureFixture[str]) -> None:
    Path("f").write_text("x")
    assert run(["submit", "f", "--param", "novalue", "--url", "http://x", "--token", "t"]) == 2
    assert "'novalue' is not of the form NAME=VALUE" in capsys.readouterr().err


def test_the_settings_file_of_up_holds_settings_and_nothing_else(
    state: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_CLOUD_PASSWORD", "unrelated")
    state.write_settings(complete(state, {"DATABASE_URL": "postgresql://x"}).values)
    known = {name.upper() for name in Settings.model_fields}
    assert json.loads((state.path / "settings.json").read_text()).keys() <= known
