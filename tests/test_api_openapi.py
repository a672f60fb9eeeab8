"""What is promised: the OpenAPI document, the page made from it, and docs/api.md say the same as the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from api_play import PREFIX, make_settings
from flask import Flask
from jsonschema import Draft202012Validator
from tree import ROOT, read, under

from api import create_app
from api.codes import CODES
from api.house import house_of
from api.openapi import full_path, list_calls
from tasks.documents.problems import STATUS

PAGE = ROOT / "docs" / "api.md"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """An app without a database: describing itself needs none."""
    app = create_app(make_settings("postgresql://127.0.0.1:1/none", tmp_path_factory.mktemp("bare")))
    yield app
    house_of(app).close()


@pytest.fixture
def api(bare: Flask) -> dict[str, Any]:
    return dict(bare.test_client().get(f"{PREFIX}/openapi.json").get_json())


def operations(api: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, one) for path, methods in api["paths"].items() for method, one in methods.items()]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from ([value["$ref"]] if "$ref" in value else [])
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_it_is_openapi_3_1_with_everything_it_refers_to(api: dict[str, Any]) -> None:
    assert api["openapi"] == "3.1.0"
    schemas = api["components"]["schemas"]
    assert {reference.rpartition("/")[2] for reference in references(api)} <= set(schemas)
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    names = [one["operationId"] for _, _, one in operations(api)]
    assert len(names) == len(set(names))


def test_bounds_are_said_in_words_that_json_schema_knows(api: dict[str, Any]) -> None:
    said = json.dumps(api["components"]["schemas"])
    assert {word for word in ("ge", "gt", "le", "lt", "min_length", "max_length") if f'"{word}": ' in said} == set()
    days = api["components"]["schemas"]["NewKey"]["properties"]["expires_in_days"]["anyOf"][0]
    assert (days["minimum"], days["maximum"]) == (1, 3650)


def test_every_route_is_in_it_and_nothing_else(bare: Flask, api: dict[str, Any]) -> None:
    routes = {
        (re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in bare.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule.startswith(PREFIX)
    }
    assert routes == {(path, method) for path, method, _ in operations(api)}


def test_every_call_says_what_it_is_for_what_it_gives_and_how_it_fails(api: dict[str, Any]) -> None:
    for path, method, one in operations(api):
        place = f"{method} {path}"
        assert len(one["description"]) > 30, place
        assert {"500", "503"} <= set(one["responses"]), place
        assert bool(one["security"]) == ("401" in one["responses"]), place
        declared = {part["name"] for part in one["parameters"] if part["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", path)), place
        for status, answer in one["responses"].items():
            assert answer["description"], f"{place} {status}"


def test_every_example_fits_its_schema(api: dict[str, Any]) -> None:
    for path, method, one in operations(api):
        bodies = [one["requestBody"]] if "requestBody" in one else []
        for answer in [*bodies, *one["responses"].values()]:
            for content in answer.get("content", {}).values():
                validator = Draft202012Validator(content.get("schema", {}) | {"components": api["components"]})
                shown = [content["example"]] if "example" in content else []
                for example in [*shown, *(part["value"] for part in content.get("examples", {}).values())]:
                    problems = [error.message for error in validator.iter_errors(example)]
                    assert problems == [], f"{method} {path}"


def test_every_json_body_has_an_example_and_every_parameter_a_description(api: dict[str, Any]) -> None:
    for path, method, one in operations(api):
        place = f"{method} {path}"
        bodies = [one["requestBody"]] if "requestBody" in one else []
        for answer in [*bodies, *one["responses"].values()]:
            content = answer.get("content", {}).get("application/json")
            assert content is None or "example" in content or "examples" in content or "anyOf" in content["schema"], (
                place
            )
        assert [part["name"] for part in one["parameters"] if part["in"] != "path" and not part["description"]] == [], (
            place
        )


def test_every_code_is_raised_somewhere_and_every_raised_code_is_listed() -> None:
    named = {
        word
        for path in (*under("api", "tasks", suffix=".py"), *under("supabase/migrations", suffix=".sql"))
        if path != "api/codes.py"
        for word in re.findall(r"[\"'`]([a-z]+(?:_[a-z]+)+)[\"'`]", read(path))
    }
    assert set(CODES) - named == set()
    raised = {
        word
        for path in under("api", suffix=".py")
        for word in re.findall(r"(?:refuse|Unavailable|_refused)\(\s*\"(\w+)\"", read(path))
    }
    assert raised - set(CODES) == set()
    assert {code: CODES[code].status for code in STATUS} == STATUS


def test_every_code_belongs_to_a_call(bare: Flask) -> None:
    promised = {code for call in list_calls(bare) for code in call.codes}
    assert set(CODES) - promised == {"not_found", "method_not_allowed"}
    assert promised <= set(CODES)


def test_the_page_shows_every_call_and_code_and_needs_nothing_from_elsewhere(bare: Flask, api: dict[str, Any]) -> None:
    answer = bare.test_client().get(f"{PREFIX}/docs")
    assert answer.mimetype == "text/html"
    for _, _, one in operations(api):
        assert f'id="{one["operationId"]}"' in answer.text
    assert all(f'id="code-{code}"' in answer.text for code in CODES)
    links = set(re.findall(r'(?:href|src)="#([^"]+)"', answer.text))
    assert links <= set(re.findall(r'id="([^"]+)"', answer.text))
    assert not re.search(r'(?:src|href)="(?:https?:)?//', answer.text)
    assert "<script" not in answer.text
    assert "style-src 'nonce-" in answer.headers["Content-Security-Policy"]


def test_docs_api_lists_every_call_and_every_code(bare: Flask) -> None:
    text = PAGE.read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `(GET|POST|PUT|PATCH|DELETE) (\S+?)` \|", text, re.MULTILINE))
    assert listed == {(call.method, full_path(call).removeprefix(PREFIX)) for call in list_calls(bare)}
    codes = {code: int(status) for code, status in re.findall(r"^\| `(\w+)` \| (\d{3}) \|", text, re.MULTILINE)}
    assert codes == {code: known.status for code, known in CODES.items()}


def test_the_bodies_that_the_pages_show_are_what_the_api_takes_and_gives(api: dict[str, Any]) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGE.parent.glob("*.md"))
    shown = re.findall(r"```json (\w+)\n(.*?)```", pages, re.DOTALL)
    assert {name for name, _ in shown} >= {"NewJob", "Error"}
    for name, text in shown:
        schema = {"$ref": f"#/components/schemas/{name}", "components": api["components"]}
        Draft202012Validator(schema).validate(json.loads(text))


def test_answers_link_to_the_calls_they_lead_to(api: dict[str, Any]) -> None:
    started = api["paths"][f"{PREFIX}/jobs"]["post"]["responses"]["202"]["links"]
    assert started["look_at_a_job"] == {"operationId": "look_at_a_job", "parameters": {"job_id": "$response.body#/id"}}
    listed = api["paths"][f"{PREFIX}/jobs/{{job_id}}/artifacts"]["get"]["responses"]["200"]["links"]
    assert listed["download_an_artifact"]["parameters"] == {"artifact_id": "$response.body#/artifacts/0/id"}


def test_every_link_leads_to_a_call_and_fills_its_path(api: dict[str, Any]) -> None:
    paths = {one["operationId"]: path for path, _, one in operations(api)}
    links = [link for _, _, one in operations(api) for answer in one["responses"].values()
             for link in answer.get("links", {}).values()]  # fmt: skip
    assert links
    for link in links:
        assert set(link["parameters"]) == set(re.findall(r"{(\w+)}", paths[link["operationId"]]))
