"""Which options a tool gets, and which executor they ask for (BEHAVIOUR L1 to L6)."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest

from overnight.cache import NO_TASK_CACHE, FileTaskCache
from overnight.cli_options import choose
from overnight.cli_tools import TaskGraphCli
from overnight.errors import UsageError
from overnight.process_pool_executor import ProcessPoolTaskExecutor
from overnight.queue_executor import QueueExecutor
from overnight.sequential_executor import SequentialExecutor

NO_ENVIRONMENT: dict[str, str] = {}


def parse(*words: str, **modes: Any) -> Namespace:
    parser = ArgumentParser()
    TaskGraphCli.add_arguments(parser, **modes)
    return parser.parse_args(words)


def test_defaults_are_those_of_the_table() -> None:
    """L2."""
    assert vars(parse()) == {
        "jobs": None,
        "use_process_pool": False,
        "dask_cluster_name": None,
        "dask_cluster_config_file": None,
        "executor": None,
        "redis_url": None,
        "task_log_dir": None,
        "command": "run",
        "task_ids": None,
        "keep_going": False,
        "fork_tasks": False,
        "force": False,
        "task_status_dir": "./.task-progress",
    }


@pytest.mark.parametrize(
    ("words", "dest", "value"),
    [
        (["-j", "3"], "jobs", 3),
        (["--jobs", "3"], "jobs", 3),
        (["--dask-cluster-name", "big"], "dask_cluster_name", "big"),
        (["--dask-cluster-config-file", "f.yaml"], "dask_cluster_config_file", "f.yaml"),
        (["--force"], "force", True),
        (["--task-ids", "a"], "task_ids", ["a"]),
        (["--task-status-dir", "flags"], "task_status_dir", "flags"),
        (["list"], "command", "list"),
        (["--pp"], "use_process_pool", True),
        (["--process-pool"], "use_process_pool", True),
        (["-N", "big"], "dask_cluster_name", "big"),
        (["--dcn", "big"], "dask_cluster_name", "big"),
        (["-c", "f.yaml"], "dask_cluster_config_file", "f.yaml"),
        (["--dccf", "f.yaml"], "dask_cluster_config_file", "f.yaml"),
        (["--executor", "queue"], "executor", "queue"),
        (["--redis-url", "redis://x"], "redis_url", "redis://x"),
        (["--task-log-dir", "logs"], "task_log_dir", "logs"),
        (["status"], "command", "status"),
        (["run", "-t", "a", "b"], "task_ids", ["a", "b"]),
        (["-t", "a", "run"], "task_ids", ["a", "run"]),
        (["--keep-going"], "keep_going", True),
        (["--fork-tasks"], "fork_tasks", True),
        (["--fork-task"], "fork_tasks", True),
        (["--fork"], "fork_tasks", True),
        (["-f"], "force", True),
        (["-d", "flags"], "task_status_dir", "flags"),
        (["--tsd", "flags"], "task_status_dir", "flags"),
    ],
)
def test_each_flag_sets_its_destination(words: Any, dest: str, value: Any) -> None:
    """L2, L3."""
    assert getattr(parse(*words), dest) == value


def test_two_groups_hold_every_option_of_the_table_and_no_other() -> None:
    """L1, L2."""
    parser = ArgumentParser(add_help=False)
    TaskGraphCli.add_arguments(parser)
    assert {"Task Graph Executor", "Execution Mode"} <= set(parser.format_help().replace(":", "").splitlines())
    titled = [group for group in parser._action_groups if group._group_actions]
    assert [group.title for group in titled] == ["Task Graph Executor", "Execution Mode"]
    flags = {flag for action in parser._actions for flag in action.option_strings}
    table = """-j --jobs --process-pool --pp -N --dask-cluster-name --dcn -c --dccf --dask-cluster-config-file
        --executor --redis-url --task-log-dir -t --task-ids --keep-going --fork-tasks --fork-task --fork -f --force -d
        --task-status-dir --tsd"""
    assert flags == set(table.split())
    assert [action.dest for action in parser._actions if not action.option_strings] == ["command"]


@pytest.mark.parametrize("words", [["--executor", "slurm"], ["walk"], ["-j", "many"], ["-t"]])
def test_a_word_that_is_no_choice_is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """L2."""
    with pytest.raises(SystemExit) as ended:
        parse(*words)
    assert ended.value.code == 2
    assert "error: argument" in capsys.readouterr().err


def test_the_status_directory_is_the_tools_own_default() -> None:
    """L1, L2."""
    assert parse(default_task_status_dir="elsewhere").task_status_dir == "elsewhere"
    assert parse(default_task_status_dir=None).task_status_dir is None


def test_without_progress_mode_and_commands_their_options_are_absent() -> None:
    """L1, L3."""
    options = parse(task_progress_mode=False, use_commands=False)
    assert not {"force", "task_status_dir", "command"} & set(vars(options))


def test_short_flags_and_positionals_of_the_table_alone_are_taken() -> None:
    """L1: the rest belongs to the host tool."""
    parser = ArgumentParser()
    TaskGraphCli.add_arguments(parser, use_commands=False)
    for letter in "abeghiklmnopqrsuvwxyzV":
        if letter != "h":
            parser.add_argument(f"-{letter}")
    parser.add_argument("positional")
    assert parser.parse_args(["-v", "1", "mine"]).positional == "mine"


@pytest.mark.parametrize(
    ("options", "executor"),
    [
        ({}, "sequential"),
        ({"jobs": 1}, "sequential"),
        ({"jobs": 1, "use_process_pool": True}, "sequential"),
        ({"jobs": None}, "queue"),
        ({"jobs": 4}, "queue"),
        ({"jobs": 4, "use_process_pool": True}, "process-pool"),
        ({"jobs": None, "use_process_pool": True}, "process-pool"),
        ({"jobs": 4, "dask_cluster_name": "n"}, "dask"),
        ({"jobs": None, "dask_cluster_config_file": "f"}, "dask"),
        ({"executor": "dask"}, "dask"),
        ({"executor": "dask", "jobs": 1, "dask_cluster_name": "n"}, "dask"),
        ({"executor": "sequential", "jobs": None}, "sequential"),
        ({"executor": "process-pool", "jobs": 1}, "process-pool"),
        ({"redis_url": "redis://x"}, "queue"),
        ({"redis_url": "redis://x", "jobs": 1}, "queue"),
        ({"executor": "queue", "redis_url": "redis://x"}, "queue"),
    ],
)
def test_the_executor_is_the_one_that_the_options_ask_for(options: dict[str, Any], executor: str) -> None:
    """L4, L5."""
    assert choose(options, NO_ENVIRONMENT).executor == executor


@pytest.mark.parametrize("options", [{"executor": "queue"}, {"executor": "dask"}, {"redis_url": "redis://x"}])
def test_one_job_is_one_worker_where_another_executor_is_asked_for(options: dict[str, Any]) -> None:
    """L5, L4."""
    assert choose({**options, "jobs": 1}, NO_ENVIRONMENT).jobs == 1
    assert choose({**options, "jobs": None}, NO_ENVIRONMENT).jobs is None


def test_a_queue_executor_gets_server_workers_and_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L4."""
    cache = FileTaskCache(str(tmp_path))
    monkeypatch.setenv("OVERNIGHT_REDIS_URL", "redis://env:1/0")
    made = TaskGraphCli.create_executor(cache, **vars(parse("-j", "3")))
    assert isinstance(made, QueueExecutor)
    assert (made.task_cache, made._workers, made._settings.redis_url) == (cache, 3, "redis://env:1/0")
    made = TaskGraphCli.create_executor(None, **vars(parse("--redis-url", "redis://given:1/0")))
    assert isinstance(made, QueueExecutor)
    assert (made.task_cache, made._workers, made._settings.redis_url) == (NO_TASK_CACHE, None, "redis://given:1/0")
    monkeypatch.delenv("OVERNIGHT_REDIS_URL")
    made = TaskGraphCli.create_executor(jobs=2)
    assert isinstance(made, QueueExecutor)
    assert made._settings.redis_url is None


def test_a_process_pool_gets_its_size_and_cache(tmp_path: Path) -> None:
    """L4, B2: no process starts before there is a task."""
    cache = FileTaskCache(str(tmp_path))
    made = TaskGraphCli.create_executor(cache, **vars(parse("--pp", "-j", "3", "--force")))
    assert isinstance(made, ProcessPoolTaskExecutor)
    assert (made.task_cache, made.parameters.max_workers, made.force) == (cache, 3, True)
    made = TaskGraphCli.create_executor(None, **vars(parse("--pp")))
    assert isinstance(made, ProcessPoolTaskExecutor)
    assert (made.task_cache, made.parameters.max_workers, made.force) == (NO_TASK_CACHE, None, False)


def test_an_unknown_cluster_is_refused_with_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L5: by name, and by type in a file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "cluster.yaml").write_text("type: abacus\n", encoding="utf-8")
    for words in (["-N", "unheard"], ["-c", str(tmp_path / "cluster.yaml")]):
        with pytest.raises(UsageError, match=r"(unheard|abacus).*the known ones are .*local") as caught:
            TaskGraphCli.create_executor(None, **vars(parse("-j", "2", *words)))
        assert "\n" not in str(caught.value)


def test_the_environment_names_the_server_and_never_conflicts() -> None:
    """L4, L5."""
    environ = {"OVERNIGHT_REDIS_URL": "redis://env"}
    assert choose({"jobs": 2}, environ).redis_url == "redis://env"
    assert choose({"jobs": 2, "redis_url": "redis://given"}, environ).redis_url == "redis://given"
    assert choose({"jobs": 2, "use_process_pool": True}, environ).executor == "process-pool"
    assert choose({"jobs": 1}, environ).executor == "sequential"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"jobs": 0}, "--jobs"),
        ({"jobs": -2}, "--jobs"),
        ({"dask_cluster_name": "n"}, "--dask-cluster-name"),
        ({"jobs": 1, "dask_cluster_name": "n"}, "--dask-cluster-name"),
        ({"jobs": 2, "dask_cluster_name": "n", "use_process_pool": True}, "--process-pool"),
        ({"jobs": 2, "dask_cluster_name": "n", "redis_url": "redis://x"}, "--redis-url"),
        ({"jobs": 2, "dask_cluster_name": "n", "dask_cluster_config_file": "f"}, "together"),
        ({"redis_url": "redis://x", "use_process_pool": True}, "--process-pool"),
        ({"executor": "sequential", "jobs": 2}, "--jobs 2"),
        ({"executor": "sequential", "redis_url": "redis://x"}, "--redis-url"),
        ({"executor": "queue", "use_process_pool": True}, "--process-pool"),
        ({"executor": "process-pool", "jobs": 2, "dask_cluster_name": "n"}, "--dask-cluster-name"),
        ({"executor": "slurm"}, "sequential, process-pool, dask, queue"),
    ],
)
def test_options_that_contradict_each_other_are_refused_in_one_sentence(options: dict[str, Any], words: Any) -> None:
    """L5."""
    with pytest.raises(ValueError, match=words) as caught:
        TaskGraphCli.create_executor(None, **options)
    assert isinstance(caught.value, UsageError)
    assert str(caught.value).count("\n") == 0


def test_a_whole_namespace_may_be_passed_and_its_settings_reach_the_executor() -> None:
    """L4, B1."""
    options = parse("-j", "1", "-f", "--fork", "--task-log-dir", "logs")
    executor = TaskGraphCli.create_executor(None, **vars(options), verbose=None, host_option=object())
    assert isinstance(executor, SequentialExecutor)
    assert executor.force is True
    assert executor.parameters.fork_tasks is True
    assert executor.parameters.task_log_dir == "logs"
