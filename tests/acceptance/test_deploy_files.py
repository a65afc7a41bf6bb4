"""The files of `deploy/` are what systemd, Compose, Kubernetes, KEDA, Docker and shells take, as far as one can tell.

None of these runs here: units are judged by `systemd-analyze`, documents by the schemas of their makers.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import check_jsonschema
import jsonschema
import kubernetes_validate
import pytest

from overnight.config import VARIABLES
from overnight.keyring import KEY_FILE_VARIABLE, KEY_VARIABLE
from overnight.notices import NOTIFY_VARIABLE, Occasion, variables
from tests.support.command import ROOT
from tests.support.deploy import DEPLOY, documents, manifests, unit_lines

UNITS = sorted(path.name for path in (DEPLOY / "systemd").iterdir())
SERVICES = [name for name in UNITS if name.endswith(".service")]
KUBERNETES = "1.31"
WORST_EXPOSURE = 2.0
TOP_SECTIONS = ("Unit", "Service", "Timer", "Install")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: apt-get install systemd"
)


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units as they are installed, with programs that exist here in the place of those that do not."""
    for name in UNITS:
        text = (DEPLOY / "systemd" / name).read_text(encoding="utf-8")
        text = text.replace("/opt/overnight/bin/overnight ", f"{sys.executable} ").replace(
            "/usr/bin/redis-server", sys.executable
        )
        (tmp_path / name.replace("@.", "@default.")).write_text(text, encoding="utf-8")
    return tmp_path


def verified(directory: Path) -> subprocess.CompletedProcess[str]:
    words = ["systemd-analyze", "verify", "--man=no", *sorted(map(str, directory.iterdir()))]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@needs_systemd
def test_systemd_takes_the_units(units: Path) -> None:
    told = verified(units)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


@needs_systemd
def test_systemd_would_tell_of_a_unit_that_is_wrong(units: Path) -> None:
    timer = units / "overnight-nightly.timer"
    timer.write_text(timer.read_text().replace("OnCalendar=*-*-* 22:00", "OnCalender=nightly"))
    assert "OnCalender" in verified(units).stderr


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_little_beyond_its_work(units: Path, name: str) -> None:
    path = units / name.replace("@.", "@default.")
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(path)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert found is not None, told
    assert float(found[1]) <= WORST_EXPOSURE, told


@needs_systemd
def test_the_timer_goes_off_every_night_at_ten() -> None:
    [when] = unit_lines("overnight-nightly.timer", "OnCalendar")
    words = ["systemd-analyze", "calendar", "--iterations=3", "--base-time=2026-03-01 12:00:00 UTC", when]
    told = subprocess.run(words, capture_output=True, text=True, check=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin"})
    assert [f"2026-03-0{day} 22:00:00" in told.stdout for day in (1, 2, 3)] == [True] * 3


def test_a_worker_service_stops_after_its_tasks_had_their_time() -> None:
    """The service manager must not kill what still drains, nor end all for one task that the kernel has killed."""
    name = "overnight-worker@.service"
    [drain] = [line for line in unit_lines(name, "Environment") if line.startswith("OVERNIGHT_DRAIN_SECONDS=")]
    assert int(drain.partition("=")[2]) < int(unit_lines(name, "TimeoutStopSec")[0])
    assert (unit_lines(name, "KillMode"), unit_lines(name, "OOMPolicy")) == (["mixed"], ["continue"])


def test_the_nightly_service_lets_its_run_be_told_of() -> None:
    """Whoever tells of a run does so after the command has ended; with it systemd ends all that it may."""
    assert unit_lines("overnight-nightly.service", "KillMode") == ["process"]


def compose_errors(document: Any) -> list[str]:
    vendor = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendor.read_text(encoding="utf-8"))
    validator = jsonschema.validators.validator_for(schema)(schema)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


def test_compose_takes_its_file() -> None:
    [document] = documents(DEPLOY / "compose.yaml")
    assert compose_errors(document) == []
    services = document["services"]
    assert services["scheduler"]["deploy"]["replicas"] == 2
    assert services["worker"]["deploy"]["replicas"] == "${WORKERS:-2}"
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert not service["user"].startswith("0")
        assert "ports" not in service
    document["services"]["worker"]["replica"] = 3
    assert len(compose_errors(document)) == 1


def strict(schema: Any) -> Any:
    """A schema of KEDA that knows no other fields than those it names, as `kubectl apply` would say too."""
    if isinstance(schema, dict):
        closed = {key: strict(value) for key, value in schema.items()}
        if "properties" in closed and schema.get("type") == "object" and "metadata" not in closed["properties"]:
            closed.setdefault("additionalProperties", False)
        return closed
    return [strict(one) for one in schema] if isinstance(schema, list) else schema


def keda_errors(document: Any) -> list[str]:
    schemas = json.loads((ROOT / "tests" / "support" / "keda_schemas.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft7Validator(strict(schemas[document["kind"]]))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("document", manifests(), ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_kubernetes_takes_each_manifest(document: Any) -> None:
    if document["apiVersion"].startswith("keda.sh/"):
        assert keda_errors(document) == []
    else:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_a_manifest_with_a_misspelt_field_would_be_refused() -> None:
    kinds = {document["kind"]: copy.deepcopy(document) for document in manifests()}
    kinds["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriod"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(kinds["Deployment"], KUBERNETES, strict=True)
    kinds["ScaledObject"]["spec"]["pollingIntervals"] = 1
    assert len(keda_errors(kinds["ScaledObject"])) == 1


def pods() -> dict[str, Any]:
    """The pod templates by name."""
    found = {}
    for document in manifests():
        spec = document.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template is not None:
            found[document["metadata"]["name"]] = template
    return found


def test_every_pod_keeps_to_the_restricted_standard() -> None:
    assert set(pods()) == {"redis", "scheduler", "worker", "nightly"}
    for template in pods().values():
        security = template["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert template["spec"]["automountServiceAccountToken"] is False
        for container in template["spec"]["containers"]:
            own = container["securityContext"]
            assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert "limits" in container["resources"]


def test_whoever_must_reach_the_server_may_and_every_name_is_made_by_the_readme() -> None:
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in manifests()}
    [peer, _keda] = by_name["NetworkPolicy", "redis"]["spec"]["ingress"][0]["from"]
    wanted = peer["podSelector"]["matchLabels"].items()
    assert {name for name, one in pods().items() if wanted <= one["metadata"]["labels"].items()} == {
        "scheduler", "worker", "nightly",
    }  # fmt: skip
    readme = (DEPLOY / "README.md").read_text(encoding="utf-8")
    made = set(re.findall(r"create (?:configmap|secret generic) ([a-z]+)", readme)) | {"client", "scheduler", "worker"}
    text = "".join(path.read_text(encoding="utf-8") for path in (DEPLOY / "kubernetes").glob("*.yaml"))
    used = set(re.findall(r"(?:configMap|secretRef|secret):\n\s+name: ([a-z]+)", text))
    assert used == made - {"scaler"}
    listed = documents(DEPLOY / "kubernetes" / "kustomization.yaml")[0]["resources"]
    assert {*listed, "kustomization.yaml"} == {path.name for path in (DEPLOY / "kubernetes").iterdir()}


def test_the_readme_finds_the_manifests_from_where_it_makes_the_files() -> None:
    """Its commands are typed in /etc/overnight, where certificate and passwords lie."""
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    [*paths] = re.findall(r"^kubectl apply -[fk] (\S+)$", text, re.MULTILINE)
    assert len(paths) == 2
    for path in paths:
        assert path.startswith('"$DEPLOY"/')
        assert (DEPLOY / path.removeprefix('"$DEPLOY"/')).exists()


def test_the_image_is_small_and_runs_as_nobody() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    steps = [line for line in lines if re.match(r"[A-Z]+ ", line)]
    stages = [line for line in steps if line.startswith("FROM ")]
    assert len(stages) == 2
    assert all("-slim" in stage for stage in stages)
    last = steps[steps.index(stages[1]) :]
    [user] = [line.split()[1] for line in last if line.startswith("USER ")]
    assert int(user.partition(":")[0]) >= 1000
    assert last.index(f"USER {user}") < last.index('ENTRYPOINT ["overnight"]')
    for line in [line for line in steps if line.startswith("COPY ") and "--from" not in line]:
        for source in line.split()[1:-1]:
            assert (ROOT / source).exists(), line


def test_the_user_of_crons_line_may_read_what_it_reads() -> None:
    """The files of settings are root's alone; other than systemd, cron reads them as the user whom its line names."""
    line = (DEPLOY / "cron" / "overnight").read_text(encoding="utf-8").splitlines()[-1]
    found = re.fullmatch(r"(?:\S+ ){5}(\S+) .* \. (/etc/\S+\.env); .*", line)
    assert found is not None
    given = f"chgrp {found[1]} {found[2]} && chmod 640 {found[2]}"
    assert given in (DEPLOY / "README.md").read_text(encoding="utf-8")


def test_shells_take_the_scripts(tmp_path: Path) -> None:
    (tmp_path / "readme.sh").write_text(
        "#!/bin/sh\n"
        + "".join(
            re.findall(r"^```sh\n(.*?)^```$", (DEPLOY / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
        ),
        encoding="utf-8",
    )
    told = subprocess.run(
        [
            "shellcheck",
            "--exclude=SC1091,SC2164",
            str(DEPLOY / "slurm" / "workers.sbatch"),
            str(tmp_path / "readme.sh"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stdout


def test_every_variable_that_is_named_is_one_that_is_read() -> None:
    known = {*VARIABLES.values(), KEY_VARIABLE, KEY_FILE_VARIABLE, NOTIFY_VARIABLE, *said_to_commands()}
    for path in [path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".pyc"]:
        named = set(re.findall(r"OVERNIGHT_[A-Z_]+", path.read_text(encoding="utf-8")))
        assert named - known - {"OVERNIGHT_ENV"} == set(), path


def said_to_commands() -> set[str]:
    """The variables of every notice."""
    facts = {"run": "", "name": "", "phase": "", "seconds": 0.0, "total": 0, "counts": {}}
    return {*variables(Occasion.FINISH, facts)}


def test_the_readme_tells_what_a_command_of_a_notice_finds() -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    assert {name for name in said_to_commands() if f"`{name}`" not in text} == set()
