"""One attempt at one delivery over real sockets: signed as receivers check it, and failing as endpoints fail."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from api_play import free_port, make_settings
from pydantic import ValidationError
from standardwebhooks.webhooks import WebhookVerificationError
from tree import read
from waiting import until
from webhook_play import (
    NAME,
    Authority,
    Behaviour,
    Receiver,
    hang,
    lead_to,
    receiving,
    reset,
    sender_settings,
    status,
    talk_for_ever,
    trickle,
)

from tasks import ledger
from tasks.webhooks.addresses import Resolve, resolve
from tasks.webhooks.post import Answer, Letter, Post, read_retry_after
from tasks.webhooks.registry import make_secret

PAYLOAD = {"type": "job.completed", "timestamp": "2026-11-23T09:31:14.003127Z", "data": {"job_id": "x", "seq": 3}}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "localhost", NAME)


@pytest.fixture
def receiver(authority: Authority) -> Iterator[Receiver]:
    with receiving(authority.identity) as receiver:
        yield receiver


@pytest.fixture
def folder(tmp_path: Path, authority: Authority) -> tuple[Path, Authority]:
    return tmp_path, authority


Folder = tuple[Path, Authority]


def letter(url: str, *secrets: str, **others: Any) -> Letter:
    known: dict[str, Any] = {"id": ledger.new_id(), "webhook_id": ledger.new_id(), "tenant_id": ledger.new_id()}
    known |= {"attempt": 1, "failures": 0, "url": url, "payload": PAYLOAD, "secrets": list(secrets) or [make_secret()]}
    return Letter(**known | others)


def send(folder: Folder, one: Letter, look_up: Resolve = resolve, **settings: Any) -> Answer:
    post = Post(sender_settings("postgresql://nowhere", *folder, **settings), look_up)
    try:
        return asyncio.run(post.send(one))
    finally:
        post.close()


def test_a_letter_is_signed_as_receivers_check_it(receiver: Receiver, folder: Folder) -> None:
    secret = make_secret()
    sent = letter(receiver.url(), secret)
    assert send(folder, sent) == Answer(204)
    (heard,) = receiver.heard
    assert heard.verified(secret) == PAYLOAD
    assert (heard.id, heard.path, heard.headers["Content-Type"]) == (str(sent.id), "/hook", "application/json")
    assert abs(int(heard.headers["webhook-timestamp"]) - time.time()) < 60
    with pytest.raises(WebhookVerificationError):
        heard.verified(make_secret())
    heard.body += b" "
    with pytest.raises(WebhookVerificationError):
        heard.verified(secret)


def test_the_receiver_on_the_page_takes_what_we_send_once_and_refuses_what_others_do(
    receiver: Receiver, folder: Folder
) -> None:
    block = re.search(r"```python\n(.*?)```", read("docs/webhooks.md"), re.DOTALL)
    assert block is not None
    page: dict[str, Any] = {}
    exec(compile(block[1], "docs/webhooks.md", "exec"), page)
    secret = make_secret()
    send(folder, letter(receiver.url(), secret))
    (heard,) = receiver.heard
    with pytest.raises(WebhookVerificationError):
        page["receive"](make_secret(), heard.headers, heard.body)
    assert page["receive"](secret, heard.headers, heard.body) == PAYLOAD
    assert page["receive"](secret, heard.headers, heard.body) is None


def test_while_a_secret_is_rotated_both_are_good(receiver: Receiver, folder: Folder) -> None:
    new, old = make_secret(), make_secret()
    send(folder, letter(receiver.url(), new, old))
    (heard,) = receiver.heard
    assert heard.verified(new) == heard.verified(old) == PAYLOAD


def test_the_body_is_the_same_at_each_attempt_and_so_is_the_id(receiver: Receiver, folder: Folder) -> None:
    first = letter(receiver.url())
    send(folder, first)
    send(folder, letter(receiver.url(), id=first.id, payload=dict(reversed(PAYLOAD.items())), attempt=2))
    assert receiver.heard[0].body == receiver.heard[1].body
    assert receiver.heard[0].id == receiver.heard[1].id


def test_the_connection_is_made_to_the_checked_address_in_the_name_of_the_host(
    receiver: Receiver, folder: Folder
) -> None:
    asked = []

    def look_up(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["127.0.0.1"]

    # No resolver of the system knows the name: had anybody else looked it up, nothing would have come.
    assert send(folder, letter(receiver.url(NAME, "/a?b=c")), look_up) == Answer(204)
    (heard,) = receiver.heard
    assert asked == [(NAME, receiver.server_port)]
    assert (heard.name, heard.path) == (NAME, "/a?b=c")
    assert heard.headers["Host"] == f"{NAME}:{receiver.server_port}"


def test_a_name_that_leads_inside_by_now_leads_nowhere(receiver: Receiver, folder: Folder) -> None:
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])

    def rebound(host: str, port: int) -> list[str]:
        return next(answers)

    assert rebound(NAME, 443) == ["93.184.216.34"]  # what registration saw
    answer = send(folder, letter(receiver.url(NAME)), rebound, webhook_allow_loopback=False)
    assert (answer.code, answer.status) == ("url_address", None)
    assert receiver.heard == []


@pytest.mark.parametrize("addresses", [["169.254.169.254"], ["93.184.216.34", "127.0.0.1"], ["::ffff:127.0.0.1"], []])
def test_an_address_inside_is_never_connected_to(receiver: Receiver, folder: Folder, addresses: list[str]) -> None:
    answer = send(folder, letter(receiver.url(NAME)), lead_to(*addresses), webhook_allow_loopback=False)
    assert answer.code == ("url_address" if addresses else "url_unresolved")
    assert receiver.heard == []


def test_the_next_address_is_tried_when_one_cannot_be_connected_to(receiver: Receiver, folder: Folder) -> None:
    assert send(folder, letter(receiver.url(NAME)), lead_to("127.0.0.9", "127.0.0.1")) == Answer(204)


def test_a_proxy_of_the_environment_is_not_used(
    receiver: Receiver, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert send(folder, letter(receiver.url())) == Answer(204)


@pytest.mark.parametrize(
    ("behave", "code", "answered"),
    [
        (status(500), "refused", 500),
        (status(400), "refused", 400),
        (status(429), "refused", 429),
        (status(304), "refused", 304),
        (status(410), "gone", 410),
        (reset, "connection_lost", None),
    ],
    ids=["500", "400", "429", "304", "410", "reset"],
)
def test_what_an_endpoint_does_wrong_has_a_code_and_a_sentence(
    receiver: Receiver, folder: Folder, behave: Behaviour, code: str, answered: int | None
) -> None:
    receiver.behave = behave
    answer = send(folder, letter(receiver.url()))
    assert (answer.code, answer.status, answer.gone) == (code, answered, code == "gone")
    assert answer.message is not None
    assert answer.message.endswith(".")
    assert len(receiver.heard) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_wherever_it_leads(
    receiver: Receiver, authority: Authority, folder: Folder, code: int
) -> None:
    with receiving(authority.identity) as inside:
        receiver.behave = status(code, Location=inside.url())
        answer = send(folder, letter(receiver.url()))
        assert (answer.code, answer.status) == ("redirected", code)
        assert (len(receiver.heard), inside.heard) == (1, [])


@pytest.mark.parametrize("behave", [hang, trickle], ids=["silence", "trickle"])
def test_one_limit_is_on_everything(receiver: Receiver, folder: Folder, behave: Behaviour) -> None:
    receiver.behave = behave
    began = time.monotonic()
    answer = send(folder, letter(receiver.url()), webhook_timeout_s=0.5)
    assert answer.code == "timeout"
    assert 0.4 < time.monotonic() - began < 5


def test_a_name_that_is_slow_to_look_up_counts_too(receiver: Receiver, folder: Folder) -> None:
    def look_up(host: str, port: int) -> list[str]:
        receiver.let_go.wait(10)
        return ["127.0.0.1"]

    began = time.monotonic()
    post = Post(sender_settings("postgresql://nowhere", *folder, webhook_timeout_s=0.3), look_up)

    async def scene() -> Answer:
        answer = await post.send(letter(receiver.url(NAME)))
        receiver.let_go.set()
        return answer

    assert asyncio.run(scene()).code == "timeout"
    assert time.monotonic() - began < 5
    post.close()


def test_an_answer_that_never_ends_is_an_answer(receiver: Receiver, folder: Folder) -> None:
    receiver.behave = talk_for_ever
    began = time.monotonic()
    assert send(folder, letter(receiver.url())) == Answer(200)
    assert time.monotonic() - began < 4


def test_a_certificate_of_nobody_we_know_is_no_certificate(receiver: Receiver, folder: Folder) -> None:
    assert send(folder, letter(receiver.url()), webhook_ca_file=None).code == "tls_failed"
    assert receiver.heard == []


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_without_certificates_is_told_at_once(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "authority.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValidationError, match="WEBHOOK_CA_FILE"):
        make_settings("postgresql://nowhere", tmp_path, webhook_ca_file=file)


def test_a_certificate_for_another_name_is_no_certificate(receiver: Receiver, folder: Folder) -> None:
    assert send(folder, letter(receiver.url("other.example.test")), lead_to("127.0.0.1")).code == "tls_failed"
    assert send(folder, letter(receiver.url("127.0.0.1"))) == Answer(204)
    assert len(receiver.heard) == 1


def test_an_endpoint_that_does_not_speak_tls_gets_nothing(folder: Folder) -> None:
    with receiving(None) as plain:
        assert send(folder, letter(plain.url().replace("http:", "https:"))).code in ("tls_failed", "connection_lost")
        assert plain.heard == []
        assert send(folder, letter(plain.url())) == Answer(204)  # in development
        assert send(folder, letter(plain.url()), webhook_allow_loopback=False).code == "url_not_https"
        assert len(plain.heard) == 1


def test_nobody_at_home_is_a_failure_like_any_other(folder: Folder) -> None:
    assert send(folder, letter(f"https://localhost:{free_port()}/")).code == "connect_failed"


def test_an_endpoint_says_in_either_way_how_long_to_wait(receiver: Receiver, folder: Folder) -> None:
    receiver.behave = status(429, Retry_After="7")
    assert send(folder, letter(receiver.url())).retry_after == 7
    receiver.behave = status(503, Retry_After=format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True))
    assert 200 < (send(folder, letter(receiver.url())).retry_after or 0) < 301


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("", None), ("soon", None), ("-5", None), ("0", 0), (" 12 ", 12), ("9" * 500, 999_999_999),
     ("Thu, 01 Jan 1970 00:00:00 GMT", 0), ("Thu, 99 Foo 9999", None), ("²", None)],
)  # fmt: skip
def test_a_wait_that_makes_no_sense_is_passed_over(text: str | None, seconds: float | None) -> None:
    assert read_retry_after(text) == seconds


def test_many_are_sent_at_once_and_the_slow_hold_nobody_up(
    receiver: Receiver, authority: Authority, folder: Folder
) -> None:
    receiver.behave = hang
    post = Post(sender_settings("postgresql://nowhere", *folder))

    async def scene(quick: Receiver) -> None:
        slow = [asyncio.create_task(post.send(letter(receiver.url()))) for _ in range(10)]
        assert await asyncio.gather(*(post.send(letter(quick.url())) for _ in range(10))) == [Answer(204)] * 10
        await asyncio.to_thread(until, lambda: len(receiver.heard) == 10)
        assert not any(task.done() for task in slow)
        receiver.let_go.set()
        assert await asyncio.gather(*slow) == [Answer(204)] * 10

    with receiving(authority.identity) as quick:
        asyncio.run(scene(quick))
    post.close()
