"""What a Dask cluster's description says, and the sentences about wrong ones (BEHAVIOUR L5, L6, P3)."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from overnight import cli_tools
from overnight.dask_cluster import ClusterDescription, describe, make_client
from overnight.errors import MissingExtra, OvernightError, UsageError


@pytest.fixture(autouse=True)
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the user's file of named clusters, which does not exist yet."""
    monkeypatch.delenv("OVERNIGHT_DASK_CLUSTERS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "config" / "overnight").mkdir(parents=True)
    return tmp_path / "config" / "overnight" / "dask_clusters.yaml"


def described(tmp_path: Path, text: str, workers: int | None = None) -> ClusterDescription:
    file = tmp_path / "cluster.yaml"
    file.write_text(text, encoding="utf-8")
    return describe(config_file=str(file), workers=workers)


def test_without_name_and_file_the_cluster_is_local() -> None:
    """L6."""
    assert describe(workers=3) == ClusterDescription("local", 3)


@pytest.mark.parametrize("key", ["number_of_workers", "number_of_threads"])
def test_a_file_describes_a_cluster(tmp_path: Path, key: str) -> None:
    """L6."""
    text = f"type: slurm\n{key}: 20\nparams: {{queue: short, memory: 4GB}}\nadapt_params: {{minimum: 0}}\n"
    expected = ClusterDescription("slurm", 20, {"queue": "short", "memory": "4GB"}, {"minimum": 0})
    assert described(tmp_path, text) == expected


def test_jobs_override_the_number_of_the_file(tmp_path: Path) -> None:
    """L6."""
    assert described(tmp_path, "type: sge\nnumber_of_workers: 20\n", workers=2).workers == 2


def test_a_name_is_that_of_a_type_or_of_the_users_own_file(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L6."""
    assert describe(name="slurm") == ClusterDescription("slurm")
    named.write_text("big: {type: sge, number_of_workers: 50}\nlocal: {type: local, number_of_workers: 7}\n")
    assert describe(name="big") == ClusterDescription("sge", 50)
    assert describe(name="local") == ClusterDescription("local", 7)
    other = tmp_path / "other.yaml"
    other.write_text("mine: {type: kubernetes}\n")
    monkeypatch.setenv("OVERNIGHT_DASK_CLUSTERS", str(other))
    assert describe(name="mine") == ClusterDescription("kubernetes")


def test_an_unknown_name_lists_the_known_ones(named: Path) -> None:
    """L5."""
    named.write_text("big: {type: sge}\n")
    with pytest.raises(
        UsageError, match=r"'slrum'; the known ones are big, local, slurm, sge, kubernetes; did you mean"
    ):
        describe(name="slrum")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type: lsf\n", "Unknown type 'lsf'; the known ones are local, manual, slurm, sge, kubernetes"),
        ("number_of_workers: 2\n", "The type is missing; the known ones are"),
        ("just words\n", "described by a mapping"),
        ("", "described by a mapping"),
        ("type: [unclosed\n", "is not YAML"),
        ("type: local\nworkers: 3\n", "unknown key 'workers'"),
        ("type: local\nnumber_of_workers: 0\n", "number_of_workers must be 1 or more, not 0"),
        ("type: local\nnumber_of_workers: true\n", "must be 1 or more"),
        ("type: local\nnumber_of_workers: 1\nnumber_of_threads: 1\n", "are the same"),
        ("type: local\nparams: 3\n", "params must be a mapping"),
        ("type: local\nadapt_params: [1]\n", "adapt_params must be a mapping"),
        ("type: manual\n", "needs params with the address"),
    ],
)
def test_a_wrong_description_is_a_usage_error_of_one_line(tmp_path: Path, text: str, message: str) -> None:
    """L5, L6."""
    with pytest.raises(UsageError, match=message) as raised:
        described(tmp_path, text)
    assert "\n" not in str(raised.value)
    assert "cluster.yaml" in str(raised.value)


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        describe(config_file=str(tmp_path / "absent.yaml"))


def test_the_command_line_reports_an_unknown_cluster_as_a_usage_error() -> None:
    """L5, L6: the client is made in create_executor."""
    with pytest.raises(UsageError, match="Unknown Dask cluster 'nowhere'"):
        cli_tools.TaskGraphCli.create_executor(jobs=2, dask_cluster_name="nowhere")


@pytest.mark.parametrize(("kind", "module"), [("slurm", "dask_jobqueue"), ("kubernetes", "dask_kubernetes")])
def test_a_type_whose_package_is_not_installed_says_what_to_install(kind: str, module: str) -> None:
    """P3, L6."""
    expected: Any = MissingExtra if importlib.util.find_spec(module) is None else OvernightError
    with pytest.raises(expected, match=kind):
        make_client(name=kind)


def test_importing_the_executor_imports_no_dask() -> None:
    """P3."""
    code = "import sys, overnight.dask_executor; sys.exit('distributed' in sys.modules or 'dask' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
