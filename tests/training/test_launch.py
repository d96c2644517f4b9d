"""The launch scripts, with fakes of gcloud and Slurm that keep a state and run what they get."""

import json
import math
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

_LAUNCH = Path(__file__).parents[2] / "scripts" / "launch"

# A slice that is created, waited for, and taken away; its hosts share a home folder. Copies and
# commands of ssh are really done there.
_GCLOUD = """#!/usr/bin/env bash
set -eu
echo "$*" >> calls
case "$*" in
    *queued-resources\\ create*) echo WAITING_FOR_RESOURCES > state ;;
    *queued-resources\\ describe*)
        cat state
        if [ "$(cat state)" = WAITING_FOR_RESOURCES ]; then echo ACTIVE > state; fi ;;
    *queued-resources\\ delete*) rm state ;;
    *tpu-vm\\ scp*) cp "$5" home/ ;;
    *tpu-vm\\ ssh*)
        [ "$(cat state)" = ACTIVE ] || exit 255
        cd home
        bash -c "${!##--command=}" ;;
esac
"""

# Trains, as it were: ends with the next of the codes; `preempted` takes the slice away meanwhile.
_PYTHON = """#!/usr/bin/env bash
root={root}
printf '%s\\n' "$@" > "$root/arguments"
code=$(head -n 1 "$root/codes")
sed -i 1d "$root/codes"
if [ "$code" = preempted ]; then echo SUSPENDED > "$root/state"; kill -9 $PPID; fi
exit "$code"
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (tmp_path / "home").mkdir()
    python = _PYTHON.format(root=tmp_path)
    programs = {
        "gcloud": f"#!/usr/bin/env bash\ncd {tmp_path}\n{_GCLOUD}",
        "pip": "#!/usr/bin/env bash\n",
        "python3": python,
        "python": python,
        "srun": '#!/usr/bin/env bash\n[ "$1" = --ntasks-per-node=1 ] && shift && "$@"\n',
        "scontrol": f'#!/usr/bin/env bash\necho "$*" > {tmp_path}/scontrol\n',
    }
    for name, text in programs.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("POLL_SECONDS", "0")
    return tmp_path


needs_git = pytest.mark.skipif(
    not (_LAUNCH.parents[1] / ".git").exists(), reason="the script copies the checkout's commit"
)
_TPU = ("tpu_vm.sh", "omgsr", "us-east5-b", "v5litepod-16", "v2-alpha-tpuv5-lite")
_ARGUMENTS = ("--config=configs/tiny.py", "--workdir=gs://b/a run", "--config.data.sources=('a',)")


def _launch(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(_LAUNCH / script), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_git
def test_a_preempted_slice_is_asked_for_again_until_the_run_is_finished(fakes):
    (fakes / "codes").write_text("preempted\n3\n0\n")
    done = _launch(*_TPU, *_ARGUMENTS)
    assert done.returncode == 0, done.stderr
    calls = (fakes / "calls").read_text().splitlines()
    begun = [" ".join(call.split()[2:4]) for call in calls]
    assert begun.count("queued-resources create") == 2
    assert begun[-1] == "queued-resources delete"
    assert not (fakes / "state").exists()
    assert (fakes / "codes").read_text() == ""
    assert (fakes / "arguments").read_text().splitlines() == ["scripts/train.py", *_ARGUMENTS]
    assert (fakes / "home" / "omgsr" / "scripts" / "train.py").is_file()


@needs_git
@pytest.mark.parametrize("code", [1, 2])
def test_a_run_that_fails_by_itself_is_not_tried_again(fakes, code):
    (fakes / "codes").write_text(f"{code}\n")
    done = _launch(*_TPU, *_ARGUMENTS)
    assert done.returncode == code
    assert "the slice omgsr is kept" in done.stderr
    assert (fakes / "state").read_text() == "ACTIVE\n"


@needs_git
def test_a_dry_run_prints_the_commands_and_runs_none(fakes):
    done = _launch(
        *_TPU, *_ARGUMENTS, DRY_RUN="1", QUEUE_FLAGS="--reserved --valid-until-duration=1h"
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line.split()[0] for line in printed] == ["gcloud", "git", *["gcloud"] * 4]
    assert "--accelerator-type=v5litepod-16" in printed[0]
    assert printed[0].split()[-2:] == ["--reserved", "--valid-until-duration=1h"]
    assert not (fakes / "calls").exists()


def test_without_arguments_the_usage_is_shown(fakes):
    done = _launch("tpu_vm.sh")
    assert done.returncode == 2
    assert "tpu_vm.sh NAME ZONE TYPE RUNTIME" in done.stderr


@pytest.mark.parametrize(("code", "again"), [(0, False), (2, False), (3, True)])
def test_slurm_queues_a_stopped_run_again(fakes, code, again):
    (fakes / "codes").write_text(f"{code}\n")
    here = {"SLURM_SUBMIT_DIR": str(fakes), "SLURM_JOB_ID": "7"}
    assert _launch("slurm.sh", *_ARGUMENTS, **here).returncode == code
    assert (fakes / "scontrol").exists() == again
    if again:
        assert (fakes / "scontrol").read_text() == "requeue 7\n"
    assert (fakes / "arguments").read_text().splitlines() == ["scripts/train.py", *_ARGUMENTS]


def test_slurm_is_asked_for_one_process_a_node_and_time_to_save():
    text = (_LAUNCH / "slurm.sh").read_text()
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", text, re.MULTILINE))
    assert options["ntasks-per-node"] == "1"
    assert options["signal"] == "TERM@180"


def test_the_job_set_has_a_pod_for_each_host_of_its_topology():
    job_set = yaml.safe_load((_LAUNCH / "gke.yaml").read_text())
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (job,) = job_set["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"] == {"google.com/tpu": chips}
    hosts = math.prod(map(int, topology.split("x"))) // chips
    assert spec["parallelism"] == spec["completions"] == hosts
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["values"] == [1, 2]
    assert pod["restartPolicy"] == "Never"  # what podFailurePolicy asks for


def test_the_job_sets_command_is_one_that_the_script_takes():
    job_set = yaml.safe_load((_LAUNCH / "gke.yaml").read_text())
    (job,) = job_set["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    program, *command = container["command"]
    assert program == "python"
    done = subprocess.run(
        [os.sys.executable, "-m", "tests.parse_scripts"],
        cwd=_LAUNCH.parents[1],
        input=json.dumps([command]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [None]
