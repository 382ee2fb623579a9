"""What `deploy/` sets up: these resources with these roles and no others, and commands that there are."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from tools.terraform_tables import texts

from coverslip.cli import cli

ROOT = Path(__file__).resolve().parents[1]
TERRAFORM = ROOT / "deploy/terraform"

RESOURCES = {
    "google_bigquery_dataset": {"catalog"},
    "google_bigquery_table": {"catalog"},
    "google_cloud_run_v2_job": {"run"},
    "google_cloud_run_v2_service": {"worker"},
    "google_healthcare_dataset": {"slides"},
    "google_healthcare_dicom_store": {"slides"},
    "google_project_service": {"used"},
    "google_pubsub_subscription": {"worker", "dead_letters"},
    "google_pubsub_topic": {"arrivals", "dead_letters"},
    "google_service_account": {"converter", "push", "indexer"},
    "google_storage_bucket": {"dicom", "state"},
    "google_storage_notification": {"arrivals"},
}
"""All but those that grant roles."""

CONVERTER = "${google_service_account.converter.member}"
INDEXER = "${google_service_account.indexer.member}"
PUSH = "${google_service_account.push.member}"
PUBSUB = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
STORAGE = "${data.google_storage_project_service_account.storage.member}"

GRANTS = {
    # What is granted on, role, who has it
    ("google_storage_bucket_iam_member", "${var.source_bucket}", "roles/storage.objectViewer", CONVERTER),
    ("google_storage_bucket_iam_member", "${google_storage_bucket.dicom.name}", "roles/storage.objectUser", CONVERTER),
    ("google_storage_bucket_iam_member", "${google_storage_bucket.state.name}", "roles/storage.objectUser", CONVERTER),
    ("google_healthcare_dicom_store_iam_member", "${google_healthcare_dicom_store.slides.id}",
     "roles/healthcare.dicomEditor", CONVERTER),
    ("google_storage_bucket_iam_member", "${google_storage_bucket.dicom.name}", "roles/storage.objectViewer", INDEXER),
    ("google_storage_bucket_iam_member", "${google_storage_bucket.state.name}", "roles/storage.objectViewer", INDEXER),
    ("google_bigquery_dataset_iam_member", "${google_bigquery_dataset.catalog.dataset_id}", "roles/bigquery.dataEditor",
     INDEXER),
    ("google_project_iam_member", "${var.project}", "roles/bigquery.jobUser", INDEXER),
    ("google_cloud_run_v2_service_iam_member", "${google_cloud_run_v2_service.worker.name}", "roles/run.invoker", PUSH),
    ("google_service_account_iam_member", "${google_service_account.push.name}", "roles/iam.serviceAccountTokenCreator",
     PUBSUB),
    ("google_pubsub_topic_iam_member", "${google_pubsub_topic.arrivals.name}", "roles/pubsub.publisher", STORAGE),
    ("google_pubsub_topic_iam_member", "${google_pubsub_topic.dead_letters.name}", "roles/pubsub.publisher", PUBSUB),
    ("google_pubsub_subscription_iam_member", "${google_pubsub_subscription.worker.name}", "roles/pubsub.subscriber",
     PUBSUB),
}  # fmt: skip

PLACES = ("bucket", "dicom_store_id", "dataset_id", "topic", "subscription", "service_account_id", "name", "project")
"""Attributes by which a grant names what it is on; the first that is there counts."""


def unquoted(value: Any) -> Any:
    """Return what was parsed without the quotes that the parser leaves."""
    if isinstance(value, str):
        return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    if isinstance(value, list):
        return [unquoted(each) for each in value]
    if isinstance(value, dict):
        return {unquoted(name): unquoted(each) for name, each in value.items() if not name.startswith("__")}
    return value


@pytest.fixture(scope="module")
def parsed() -> list[dict[str, Any]]:
    import hcl2

    return [unquoted(hcl2.loads(path.read_text())) for path in sorted(TERRAFORM.glob("*.tf"))]


def resources(parsed: list[dict[str, Any]]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for file in parsed:
        for block in file.get("resource", []):
            for kind, named in block.items():
                for name, body in named.items():
                    yield kind, name, body


def local(parsed: list[dict[str, Any]], name: str) -> Any:
    return next(block[name] for file in parsed for block in file.get("locals", []) if name in block)


def test_these_resources_are_made_and_no_others(parsed: list[dict[str, Any]]) -> None:
    found: dict[str, set[str]] = {}
    for kind, name, _ in resources(parsed):
        if "_iam_" not in kind:
            found.setdefault(kind, set()).add(name)
    assert found == RESOURCES


def test_these_roles_are_granted_on_these_things_and_no_others(parsed: list[dict[str, Any]]) -> None:
    found = set()
    for kind, _, body in resources(parsed):
        if "_iam_" in kind:
            assert kind.endswith("_iam_member"), "bindings and policies would take roles from others"
            assert {"for_each", "count"}.isdisjoint(body)
            place = next(body[name] for name in PLACES if name in body)
            found.add((kind, place, body["role"], body["member"]))
    assert found == GRANTS


def test_nothing_is_open_to_all_or_wide(parsed: list[dict[str, Any]]) -> None:
    text = "".join(path.read_text() for path in TERRAFORM.glob("*.tf"))
    assert re.findall(r"allUsers|allAuthenticatedUsers|roles/(?:owner|editor|viewer)\b|\.admin\b|Admin\b", text) == []
    on_project = [body["role"] for kind, _, body in resources(parsed) if kind.startswith("google_project_iam")]
    assert on_project == ["roles/bigquery.jobUser"]  # there is no narrower place for it
    bodies = {(kind, name): body for kind, name, body in resources(parsed)}
    assert bodies["google_cloud_run_v2_service", "worker"]["ingress"] == "INGRESS_TRAFFIC_INTERNAL_ONLY"
    for name in ("dicom", "state"):
        bucket = bodies["google_storage_bucket", name]
        assert (bucket["uniform_bucket_level_access"], bucket["public_access_prevention"]) == (True, "enforced")


def test_every_reference_is_to_something_that_is_there(parsed: list[dict[str, Any]]) -> None:
    text = "".join(path.read_text() for path in TERRAFORM.glob("*.tf"))
    there = {f"{kind}.{name}" for kind, name, _ in resources(parsed)}
    there |= {f"var.{name}" for file in parsed for block in file.get("variable", []) for name in block}
    there |= {f"local.{name}" for file in parsed for block in file.get("locals", []) for name in block}
    data = [each for file in parsed for each in file.get("data", [])]
    there |= {f"data.{kind}.{name}" for each in data for kind, named in each.items() for name in named}
    pattern = r"(?<![\w.\"/])(data\.google_\w+\.\w+|google_\w+\.\w+|var\.\w+|local\.\w+)"
    assert set(re.findall(pattern, text)) <= there
    used = set(re.findall(r"(?:var|local)\.\w+", text))
    assert {name for name in there if name.startswith(("var.", "local."))} == used


def test_messages_come_until_they_are_acknowledged_and_then_go_where_dead_letters_are(
    parsed: list[dict[str, Any]],
) -> None:
    bodies = {(kind, name): body for kind, name, body in resources(parsed)}
    subscription = bodies["google_pubsub_subscription", "worker"]
    assert subscription["ack_deadline_seconds"] == 600
    (policy,) = subscription["dead_letter_policy"]
    assert policy["dead_letter_topic"] == "${google_pubsub_topic.dead_letters.id}"
    arguments = local(parsed, "worker_arguments")
    assert int(arguments[arguments.index("--max-deliveries") + 1]) < policy["max_delivery_attempts"]
    assert int(arguments[arguments.index("--attempts") + 1]) < policy["max_delivery_attempts"]
    (push,) = subscription["push_config"]
    (token,) = push["oidc_token"]
    assert token["audience"] == arguments[arguments.index("--push-audience") + 1] == "${local.audience}"
    assert token["service_account_email"] == arguments[arguments.index("--push-account") + 1]
    (template,) = bodies["google_cloud_run_v2_service", "worker"]["template"]
    (container,) = template["containers"]
    assert container["args"] == "${concat(local.worker_arguments, var.conversion_arguments)}"
    assert container["resources"][0]["cpu_idle"] is False
    paths = {container[probe][0]["http_get"][0]["path"] for probe in ("startup_probe", "liveness_probe")}
    from coverslip.worker import service

    assert all(f'"{path}"' in Path(service.__file__).read_text() for path in paths)


VALUES = {
    "var.source_bucket": "slides",
    "google_storage_bucket.state.name": "p-state",
    "google_storage_bucket.dicom.name": "p-dicom",
    "var.project": "project",
    "var.region": "us-central1",
    "google_healthcare_dataset.slides.name": "coverslip",
    "google_healthcare_dicom_store.slides.name": "slides",
    "var.memory_limit": "5G",
    "var.scratch_limit": "9G",
    "local.audience": "https://coverslip-worker.project",
    "google_service_account.push.email": "push@project.iam.gserviceaccount.com",
}


@pytest.mark.parametrize("name", ["job_arguments", "worker_arguments"])
def test_arguments_are_those_of_commands_that_there_are(name: str, parsed: list[dict[str, Any]]) -> None:
    words = [re.sub(r"\$\{([\w.]+)\}", lambda match: VALUES[match[1]], word) for word in local(parsed, name)]
    parse(words)


def parse(words: list[str]) -> None:
    """Have click parse a command line without running it."""
    command: click.Command = cli
    context = click.Context(cli)
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    with command.make_context(command.name, list(words), parent=context) as context:
        assert context.params


def test_commands_in_the_documentation_are_there() -> None:
    text = (ROOT / "docs/deploy.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^\$ (coverslip .*)$", text, re.MULTILINE)
    assert len(commands) >= 5
    for command in commands:
        parse(shlex.split(command.partition("  #")[0])[1:])


def test_variables_of_the_environment_are_read_by_the_product(parsed: list[dict[str, Any]]) -> None:
    names = set()
    for kind, _, body in resources(parsed):
        template = body.get("template", [{}])[0]
        for holder in (template, *template.get("template", [])):
            for container in holder.get("containers", []):
                names |= {each["name"] for each in container.get("env", [])}
                assert kind.startswith("google_cloud_run_v2_")
    sources = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    assert names
    assert all(f'"{name}"' in sources for name in names)


def test_tables_are_those_that_an_index_would_make(parsed: list[dict[str, Any]]) -> None:
    wanted = texts()
    there = {path.relative_to(TERRAFORM) for path in TERRAFORM.rglob("*.json")}
    assert there == set(wanted)
    for path, text in wanted.items():
        assert (TERRAFORM / path).read_text() == text, "make tables writes them anew"
    (table,) = [body for kind, _, body in resources(parsed) if kind == "google_bigquery_table"]
    assert table["for_each"] == '${jsondecode(file("${path.module}/tables.json"))}'
    assert table["schema"] == '${file("${path.module}/schemas/${each.key}.json")}'
    (lifecycle,) = table["lifecycle"]
    assert lifecycle["ignore_changes"] == ["schema"]


def test_files_are_laid_out_as_terraform_does() -> None:
    terraform = shutil.which("terraform")
    if terraform is None:
        pytest.skip("terraform is not installed")
    done = subprocess.run(
        [terraform, "fmt", "-check", "-diff", "-recursive", TERRAFORM], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
