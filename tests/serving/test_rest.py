"""The routes: results with their figures, and one sentence with the right status for all else."""

import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from omgsr_jax import cli
from omgsr_jax.errors import InputError

from .conftest import LARGEST, png, wait_until


def image_of(response) -> Image.Image:
    assert response.status_code == 200, response.text
    return Image.open(io.BytesIO(response.content))


def test_raw_bytes_and_a_form_give_the_same_picture(serving):
    with serving() as client:
        raw = client.post("/v1/upscale?scale=2&format=png", content=png(8, 6))
        form = client.post(
            "/v1/upscale", data={"scale": "2"}, files={"image": ("../../a.png", png(8, 6))}
        )
    assert image_of(raw).size == (16, 12)
    assert raw.content == form.content
    assert raw.headers["content-type"] == "image/png"
    assert raw.headers["omgsr-size"] == "16x12"
    assert int(raw.headers["omgsr-batch"]) == 1
    assert float(raw.headers["omgsr-queue-seconds"]) >= 0
    assert float(raw.headers["omgsr-compute-seconds"]) >= 0


@pytest.mark.parametrize(
    ("query", "size", "kind"),
    [
        ("", (32, 24), "PNG"),
        ("scale=1.5&format=webp", (12, 9), "WEBP"),
        ("longest_side=20&format=jpg&color=lab", (20, 15), "JPEG"),
        ("size=30x10&seed=0&format=tiff", (30, 10), "TIFF"),
    ],
)
def test_what_is_asked_for_is_given(serving, query, size, kind):
    with serving() as client:
        image = image_of(client.post(f"/v1/upscale?{query}", content=png(8, 6)))
    assert (image.size, image.format) == (size, kind)


def bomb() -> bytes:
    """A PNG of few bytes whose header says 60,000 x 60,000 px."""
    data = png(1, 1)
    header = data[12:16] + (60_000).to_bytes(4, "big") * 2 + data[24:29]
    return data[:12] + header + zlib.crc32(header).to_bytes(4, "big") + data[33:]


@pytest.mark.parametrize(
    ("query", "content", "status", "says"),
    [
        ("", b"", 400, "is empty"),
        ("", b"not an image", 415, "not an image that can be read"),
        ("", b"\x80\x04\x95" + b"." * 50, 415, "not an image that can be read"),  # a pickle's head
        ("", b"https://example.org/a.png", 415, "not an image that can be read"),
        ("", png()[:70], 422, "is damaged"),
        ("", png(LARGEST, LARGEST + 1), 413, "megapixels are taken here"),
        ("", png(LARGEST // 2, LARGEST // 2), 422, "too large"),
        ("scale=9", png(), 422, "scale must be within 1 .. 8, not 9"),
        ("scale=nan", png(), 422, "scale must be a number such as 4, not 'nan'"),
        ("scale=2&size=9x9", png(), 422, "give one of scale"),
        ("size=9", png(), 422, "expected WIDTHxHEIGHT such as 1920x1080, not '9'"),
        ("seed=-1", png(), 422, "seed: expected a whole number of at least 0, not '-1'"),
        ("seed=", png(), 422, "seed: expected a whole number"),
        ("color=red", png(), 422, "color must be one of adain"),
        ("format=exe", png(), 422, "format must be one of .png"),
        ("quality=3", png(), 422, "there is no parameter 'quality'"),
        ("scale=2&scale=3", png(), 422, "'scale' is given more than once"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(serving, query, content, status, says):
    for path in ("/v1/upscale", "/v1/jobs"):
        with serving() as client:
            response = client.post(f"{path}?{query}", content=content)
            if response.status_code == 202:  # then the job says it
                state = ended(client, response.json())
                assert (state["status"], state["error_status"]) == ("failed", status)
                assert says in state["error"]
                assert client.get(f"/v1/jobs/{state['id']}/result").status_code == 410
                continue
        assert (response.status_code, list(response.json())) == (status, ["error"])
        assert says in response.json()["error"]


def test_a_sentence_is_that_of_the_command_line(serving, capsys):
    with serving() as client:
        said = client.post("/v1/upscale?scale=9", content=png()).json()["error"]
    with pytest.raises(SystemExit):
        cli.main(["upscale", "a.png", "-o", "b.png", "--scale", "9"])
    assert said in capsys.readouterr().err


def test_pixels_are_counted_before_they_are_decoded(serving):
    with serving() as client:
        response = client.post("/v1/upscale", content=bomb())
    assert response.status_code == 413
    assert "too large to be opened safely" in response.json()["error"]


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_is_bounded_while_it_is_read(serving, declared):
    block, sent = b"x" * 1000, []

    def body():
        for _ in range(5000):
            sent.append(len(block))
            yield block

    headers = {"Content-Length": str(5_000_000)} if declared else {}
    with serving(upload_bytes=20_000) as client:
        response = client.post("/v1/upscale", content=body(), headers=headers)
    assert response.status_code == 413
    assert response.json()["error"] == "the upload has more than 0 MiB"


def test_forms_hold_one_file_and_known_fields(serving):
    two = [("image", ("a", png())), ("image", ("b", png()))]
    with serving() as client:
        assert client.post("/v1/upscale", files=two).status_code == 400
        assert client.post("/v1/upscale", files={"image": b""}).status_code == 400
        broken = {"Content-Type": "multipart/form-data; boundary=x"}
        assert client.post("/v1/upscale", content=b"--y", headers=broken).status_code == 400
        twice = client.post("/v1/upscale?scale=2", data={"scale": 3}, files={"image": png()})
        assert (twice.status_code, "more than once" in twice.text) == (422, True)


def test_a_full_queue_says_when_to_come_back(serving, model):
    model.open.clear()
    with serving(waiting=2) as client:
        jobs = [client.post("/v1/jobs?scale=2", content=png()).json() for _ in range(2)]
        refused = client.post("/v1/upscale?scale=2", content=png())
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        model.open.set()
        assert [ended(client, job)["status"] for job in jobs] == ["done", "done"]
        assert client.post("/v1/upscale?scale=2", content=png()).status_code == 200


def test_the_pixels_that_wait_are_bounded_too(serving, model):
    model.open.clear()
    with serving(waiting_pixels=600) as client:
        first = client.post("/v1/jobs?scale=2", content=png(8, 8)).json()  # 64 and 256
        model.begun.acquire(timeout=5)
        assert client.post("/v1/upscale?scale=2", content=png(8, 8)).status_code == 429
        model.open.set()
        assert ended(client, first)["status"] == "done"


def test_a_result_that_takes_too_long_gives_its_place_back(serving, model):
    model.open.clear()
    with serving(seconds=0.05) as client:
        response = client.post("/v1/upscale?scale=2", content=png())
        assert response.status_code == 503
        assert "not done within 0.05 seconds" in response.json()["error"]
        assert client.app.state.service.accepted == 0


def test_what_the_model_cannot_compute_is_no_fault_of_the_client(serving, model):
    model.fails.add((8, 8))
    with serving() as client:
        response = client.post("/v1/upscale?scale=2", content=png(8, 8))
    assert (response.status_code, response.json()["error"]) == (
        500,
        "the model's decode stage is not finite",
    )


def ended(client, job: dict) -> dict:
    wait_until(
        lambda: client.get(f"/v1/jobs/{job['id']}").json()["status"] not in ("queued", "running")
    )
    return client.get(f"/v1/jobs/{job['id']}").json()


def test_a_job_tells_how_far_it_is_and_keeps_its_result(serving, model):
    model.open.clear()
    with serving() as client:
        first = client.post("/v1/jobs?scale=2", content=png())
        assert first.status_code == 202
        path = first.headers["location"]
        model.begun.acquire(timeout=5)
        other = client.post("/v1/jobs?scale=3", content=png()).json()
        wait_until(lambda: "share" in client.get(path).json())
        state = client.get(path).json()
        assert (state["status"], state["stage"], state["share"]) == ("running", "predict", 0.5)
        assert state["seconds_left"] == 3
        wait_until(lambda: "before" in client.get(f"/v1/jobs/{other['id']}").json())
        assert client.get(f"{path}/result").status_code == 409
        model.open.set()
        done = ended(client, first.json())
        assert (done["status"], done["size"], done["batch"]) == ("done", "16x16", 1)
        assert image_of(client.get(done["result"])).size == (16, 16)
        assert client.delete(path).status_code == 204
        assert client.get(path).status_code == client.delete(path).status_code == 404


def test_a_job_that_is_removed_frees_its_place(serving, model):
    model.open.clear()
    with serving(waiting=1) as client:
        job = client.post("/v1/jobs", content=png()).json()
        assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
        wait_until(lambda: client.app.state.service.accepted == 0)


@pytest.mark.parametrize("limits", [{"jobs": 2}, {"job_bytes": 4000}, {"job_seconds": 0}])
def test_results_are_kept_for_a_while_and_the_oldest_go_first(serving, limits):
    with serving(**limits) as client:
        jobs = [
            client.post("/v1/jobs?scale=2&format=bmp", content=png(12, 12)).json() for _ in range(4)
        ]
        wait_until(lambda: client.app.state.service.accepted == 0)
        found = [client.get(f"/v1/jobs/{job['id']}").status_code for job in jobs]
    assert found == ([404] * 4 if "job_seconds" in limits else [404, 404, 200, 200])


def test_a_service_that_stops_takes_nothing_and_still_gives_results(serving, model):
    model.open.clear()
    with serving() as client:
        service, jobs = client.app.state.service, client.app.state.jobs
        job = client.post("/v1/jobs?scale=2", content=png()).json()
        service.is_stopping = True
        assert client.post("/v1/upscale", content=png()).status_code == 503
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").text == "alive"
        model.open.set()
        assert ended(client, job)["status"] == "done"
        assert (service.accepted, jobs.unfetched) == (0, 1)
        assert client.get(f"/v1/jobs/{job['id']}/result").status_code == 200
        assert jobs.unfetched == 0


def test_without_a_model_nothing_is_accepted_and_the_reason_is_said(serving):
    def prepare():
        raise InputError("there is no model here")

    with serving(prepare=prepare) as client:
        for response in (client.get("/readyz"), client.post("/v1/upscale", content=png())):
            assert response.status_code == 503
            assert "there is no model here" in response.json()["error"]
        assert client.get("/healthz").status_code == 200


def test_a_line_of_json_and_figures_for_each_request(serving):
    stream = io.StringIO()
    with serving(stream=stream) as client:
        client.post("/v1/upscale?scale=2", content=png())
        client.post("/v1/upscale?scale=2", content=b"nothing")
        client.get("/no%22such%0Apath")
        job = client.post("/v1/jobs?scale=2", content=png()).json()
        ended(client, job)
        figures = client.get("/metrics").text
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    done, refused, unknown = lines[:3]
    assert (done["status"], done["size"], done["batch"]) == (200, "16x16", 1)
    assert done["upload_bytes"] == len(png())
    assert (refused["status"], "error" in refused) == (415, True)
    assert unknown["status"] == 404
    assert any(line.get("job") == job["id"] and "size" in line for line in lines)
    assert 'omgsr_requests_total{route="/v1/upscale",status="200"} 1.0' in figures
    assert "omgsr_compiled_programs" in figures
    assert "process_resident_memory_bytes" in figures
    assert "omgsr_ready 1.0" in figures


def test_all_errors_are_json(serving):
    with serving() as client:
        for response in (client.get("/nowhere"), client.put("/v1/upscale"), client.get("/docs")):
            assert list(response.json()) == ["error"]


def test_openapi_names_all_routes_and_their_answers(serving):
    with serving() as client:
        paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {
        *("/v1/upscale", "/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}/result", "/v1/about"),
        *("/healthz", "/readyz", "/metrics"),
    }
    upscale = paths["/v1/upscale"]["post"]
    assert {"200", "400", "413", "415", "422", "429", "503"} <= set(upscale["responses"])
    assert {one["name"] for one in upscale["parameters"]} >= {"scale", "size", "color", "seed"}
    assert all(np.isfinite(float(status)) for status in upscale["responses"])
