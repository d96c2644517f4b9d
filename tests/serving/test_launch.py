"""What starts the service elsewhere, checked without a Docker engine: files and routes exist."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
_INSTRUCTION = re.compile(r"^([A-Z]+) ((?:.*\\\n)*.*)$", re.MULTILINE)
_INSTRUCTIONS = _INSTRUCTION.findall(DOCKERFILE)


def given(instruction: str) -> list[str]:
    return [text for name, text in _INSTRUCTIONS if name == instruction]


def manifests() -> list[dict]:
    path = ROOT / "scripts" / "launch" / "kubernetes-serve.yaml"
    return list(yaml.safe_load_all(path.read_text()))


def arguments() -> dict[str, str]:
    return dict(text.split("=", 1) for text in given("ARG"))


def test_what_is_copied_exists_and_is_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ignored[0] == "*"
    for text in given("COPY"):
        *sources, _ = re.sub(r"\$\{(\w+)\}", lambda m: arguments()[m[1]], text).split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source.split('/')[0]}" in ignored, source


def test_its_extras_exist_for_each_platform():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {arguments()["EXTRAS"], *re.findall(r"EXTRAS=([\w,]+)", DOCKERFILE)}
    assert {"serve", "serve,cuda", "serve,tpu"} <= named
    assert {one for each in named for one in each.split(",")} <= set(
        extras["optional-dependencies"]
    )


def test_it_does_not_run_as_root():
    assert given("USER") == ["10001"]
    order = [name for name, _ in _INSTRUCTIONS]
    assert order.index("USER") > max(i for i, name in enumerate(order) if name == "RUN")
    pod = manifests()[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == int(given("USER")[0])


def test_probes_ask_routes_that_exist(serving):
    container = manifests()[0]["spec"]["template"]["spec"]["containers"][0]
    asked = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness")}
    asked.add(container["livenessProbe"]["httpGet"]["path"])
    (check,) = given("HEALTHCHECK")
    asked |= set(re.findall(r"http://127.0.0.1:8000(/\w+)", check))
    with serving() as client:
        assert {path: client.get(path).status_code for path in asked} == dict.fromkeys(asked, 200)
    assert asked == {"/healthz", "/readyz"}


def test_its_commands_are_those_of_the_command_line():
    from omgsr_jax import cli

    (entry,) = given("ENTRYPOINT")
    container = manifests()[0]["spec"]["template"]["spec"]["containers"][0]
    program, *command = [*yaml.safe_load(entry), *container["args"]]
    args = cli._parse(command)
    assert (program, args.host, str(args.port)) == ("omgsr", "0.0.0.0", given("EXPOSE")[0])
    assert container["ports"][0]["containerPort"] == args.port


def test_a_pod_has_the_time_to_finish():
    from omgsr_jax.serving.limits import Limits

    pod = manifests()[0]["spec"]["template"]["spec"]
    args = pod["containers"][0]["args"]
    seconds = int(args[args.index("--timeout") + 1])
    assert pod["terminationGracePeriodSeconds"] >= seconds + Limits().grace_seconds


def test_the_space_starts_with_three_lines():
    folder = ROOT / "scripts" / "space"
    front = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    app = (folder / front["app_file"]).read_text()
    assert len(app.splitlines()) == 3
    assert "port=7860" in app
    assert "omgsr-jax[serve]" in (folder / "requirements.txt").read_text()
