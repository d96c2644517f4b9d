"""Who is served: those with the token, and no page of another site."""

import base64

import pytest

from .conftest import png

TOKEN = "a-token"


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("given", "served"),
    [
        (None, False),
        ("Bearer a-token", True),
        ("bearer a-token", True),
        ("Bearer a-toke", False),
        ("Bearer ", False),
        (basic(TOKEN), True),
        (basic("another"), False),
        ("Basic !", False),
        ("Digest a-token", False),
    ],
)
def test_the_token_opens_page_and_routes(serving, given, served):
    headers = {} if given is None else {"Authorization": given}
    with serving(token=TOKEN) as client:
        for path in ("/", "/page.js", "/v1/about", "/metrics", "/openapi.json", "/v1/jobs/x"):
            status = client.get(path, headers=headers).status_code
            assert (status != 401) == served, path
        posted = client.post("/v1/upscale?scale=2", content=png(), headers=headers)
        assert posted.status_code == (200 if served else 401)
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200


def test_browsers_ask_for_the_token_and_programs_are_told(serving):
    with serving(token=TOKEN) as client:
        page = client.get("/", headers={"Accept": "text/html,*/*"})
        program = client.get("/v1/about")
    assert page.headers["www-authenticate"].startswith("Basic ")
    assert program.headers["www-authenticate"] == "Bearer"


def test_pages_of_other_sites_cannot_send_pictures(serving):
    with serving() as client:
        for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200)):
            headers = {"Sec-Fetch-Site": site}
            answer = client.post("/v1/upscale?scale=2", content=png(), headers=headers)
            assert answer.status_code == status, site
        assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_the_page_asks_its_own_service_alone(serving):
    with serving() as client:
        page, script, styles = (client.get(path) for path in ("/", "/page.js", "/page.css"))
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    for text in (page.text, styles.text):
        assert "://" not in text
        assert "style=" not in text
    assert "://" not in script.text
