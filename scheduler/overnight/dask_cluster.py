"""Makes a Dask client as the command line asks for one (BEHAVIOUR L6).

A cluster is described by a YAML file, or by an entry of the user's file of named clusters:

    type: slurm               # local, manual, slurm, sge or kubernetes
    number_of_workers: 20     # or number_of_threads: a worker has one thread
    params:                   # passed to the class that makes the cluster
      queue: short
      memory: 4GB
    adapt_params:             # let the cluster grow and shrink; passed to its `adapt`
      minimum: 0
      maximum: 100

| type | made by | params |
|---|---|---|
| local | `distributed.LocalCluster` | all optional |
| manual | nobody: it runs already | `address`, or `scheduler_file`; others are for `distributed.Client` |
| slurm, sge | `dask_jobqueue.SLURMCluster`, `SGECluster` | `memory`, `queue`, ...; the rest from Dask's settings |
| kubernetes | `dask_kubernetes.operator.KubeCluster` | `name`, `image`, ... |

The file of named clusters maps names to such descriptions. It is `dask_clusters.yaml` in `overnight` in the user's
configuration directory (`$XDG_CONFIG_HOME`, else `~/.config`), or what `OVERNIGHT_DASK_CLUSTERS` names. The names
local, slurm, sge and kubernetes are known without it and stand for the type with nothing else said.

A number of workers that is given beside the description overrides its own; with `adapt_params` the number is the
maximum. A cluster made here ends with the client's `shutdown`; one of type manual is somebody else's and lives on.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.config
import yaml
from distributed import Client, LocalCluster

from overnight.deployment import usable_cpus
from overnight.errors import MissingExtra, Unreachable, UsageError, nearest

VARIABLE = "OVERNIGHT_DASK_CLUSTERS"
TYPES = ("local", "manual", "slurm", "sge", "kubernetes")
_NAMED = tuple(name for name in TYPES if name != "manual")
_KEYS = ("type", "params", "number_of_workers", "number_of_threads", "adapt_params")
#: Seconds to reach a running scheduler.
CONNECT_SECONDS = 15


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """A cluster as it is described; `workers` None is the type's default."""

    type: str
    workers: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    adapt_params: Mapping[str, Any] | None = None


class AttachedClient(Client):
    """A client of a cluster that belongs to somebody else: shutting it down leaves the cluster as it is."""

    def shutdown(self) -> None:
        """Close the client alone."""
        self.close()  # type: ignore[no-untyped-call]  # distributed's own


def make_client(*, name: str | None = None, config_file: str | None = None, workers: int | None = None) -> Client:
    """Return a client of the named or described cluster; without either, of a local one.

    Raises UsageError for what is unknown or wrong in the description, MissingExtra if a package is not installed,
    Unreachable if the cluster cannot be started or reached.
    """
    description = describe(name=name, config_file=config_file, workers=workers)
    _quieten()
    try:
        return _CLIENTS[description.type](description)
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"The {description.type} Dask cluster cannot be made from its params: {error}") from error
    except (OSError, RuntimeError) as error:
        raise Unreachable(f"The {description.type} Dask cluster cannot be started or reached: {error}") from error


def _quieten() -> None:
    """Keep what `distributed` says of its connections out of a tool's log (R13), unless Dask's settings ask for it."""
    if not dask.config.get("logging", None):
        logging.getLogger("distributed").setLevel(logging.WARNING)


def describe(
    *, name: str | None = None, config_file: str | None = None, workers: int | None = None
) -> ClusterDescription:
    """Return what `make_client` makes a client of. Raises UsageError."""
    if config_file is not None:
        return read_description(_loaded(Path(config_file)), config_file, workers)
    if name is None:
        return ClusterDescription("local", workers)
    path = named_clusters_file()
    named = _loaded(path) if path.exists() or os.environ.get(VARIABLE) else {}
    if not isinstance(named, Mapping):
        raise UsageError(f"{path} must map names of Dask clusters to their descriptions.")
    if name in named:
        return read_description(named[name], f"{path}, {name}", workers)
    if name in _NAMED:
        return ClusterDescription(name, workers)
    known = list(dict.fromkeys([*map(str, named), *_NAMED]))
    raise UsageError(f"Unknown Dask cluster {name!r}; the known ones are {', '.join(known)}{nearest(name, known)}")


def named_clusters_file() -> Path:
    """Return the path of the user's file of named clusters, whether it exists or not."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "overnight" / "dask_clusters.yaml"


def read_description(content: Any, where: str, workers: int | None = None) -> ClusterDescription:
    """Return a description from what a YAML file holds; `workers` overrides its number. Raises UsageError."""
    if not isinstance(content, Mapping):
        raise UsageError(f"{where}: a Dask cluster is described by a mapping with a type, not by {content!r:.60}.")
    for key in content:
        if key not in _KEYS:
            raise UsageError(f"{where}: unknown key {key!r}; the known ones are {', '.join(_KEYS)}.")
    kind = content.get("type")
    if kind not in TYPES:
        found = "The type is missing" if kind is None else f"Unknown type {kind!r}"
        raise UsageError(f"{where}: {found}; the known ones are {', '.join(TYPES)}.")
    adapt_params = _mapping(content, "adapt_params", where)
    params = _mapping(content, "params", where) or {}
    if kind == "manual" and not params.keys() & {"address", "scheduler_file"}:
        raise UsageError(f"{where}: a cluster of type manual needs params with the address of its scheduler.")
    return ClusterDescription(kind, workers or _number(content, where), params, adapt_params)


def _loaded(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The Dask cluster configuration {path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        fault = " ".join(str(error).split())
        raise UsageError(f"The Dask cluster configuration {path} is not YAML: {fault}") from error


def _mapping(content: Mapping[str, Any], key: str, where: str) -> dict[str, Any] | None:
    value = content.get(key)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: {key} must be a mapping, not {value!r:.60}.")
    return {str(name): entry for name, entry in value.items()}


def _number(content: Mapping[str, Any], where: str) -> int | None:
    given = [key for key in ("number_of_workers", "number_of_threads") if content.get(key) is not None]
    if len(given) > 1:
        raise UsageError(f"{where}: number_of_workers and number_of_threads are the same; give one of them.")
    if not given:
        return None
    value = content[given[0]]
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"{where}: {given[0]} must be 1 or more, not {value!r}.")
    return value


# Clients of each type.


def _local(description: ClusterDescription) -> Client:
    # What a worker says about its connections while it ends is nobody's concern; deaths are told by overnight.
    quiet = {"processes": True, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    settings = {**quiet, **description.params, "threads_per_worker": 1}
    preloaded = settings.get("preload", dask.config.get("distributed.worker.preload", []))
    preloaded = [preloaded] if isinstance(preloaded, str) else preloaded
    settings["preload"] = [*preloaded, "overnight.dask_interrupts"]
    workers = description.workers or usable_cpus()
    number = 0 if description.adapt_params is not None else workers
    # overnight judges deaths itself, and sooner than a cluster would that repeats what kills its workers.
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        cluster = LocalCluster(n_workers=number, **settings)
    return _client_of(cluster, description, adaptive_most=workers)


def _manual(description: ClusterDescription) -> Client:
    return AttachedClient(  # type: ignore[no-untyped-call]  # distributed's own
        **{"timeout": CONNECT_SECONDS, "set_as_default": False, **description.params}
    )


def _job_queue(class_name: str) -> Callable[[ClusterDescription], Client]:
    def client(description: ClusterDescription) -> Client:
        module = _module("dask_jobqueue", "dask-jobqueue", description.type)
        cluster = getattr(module, class_name)(**{**description.params, "cores": 1, "processes": 1})
        return _scaled(cluster, description)

    return client


def _kubernetes(description: ClusterDescription) -> Client:
    module = _module("dask_kubernetes.operator", "dask-kubernetes", description.type)
    settings = {"worker_command": ["dask-worker", "--nthreads", "1"], **description.params, "n_workers": 0}
    return _scaled(module.KubeCluster(**settings), description)


def _module(name: str, package: str, kind: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"A Dask cluster of type {kind} needs {error.name!r}, which is not installed: pip install {package}."
        ) from error


def _scaled(cluster: Any, description: ClusterDescription) -> Client:
    if description.adapt_params is None:
        cluster.scale(description.workers or 1)
    return _client_of(cluster, description, adaptive_most=description.workers)


def _client_of(cluster: Any, description: ClusterDescription, *, adaptive_most: int | None) -> Client:
    """Return a client of the cluster, made adaptive where that is asked for; the cluster ends if this fails."""
    try:
        if description.adapt_params is not None:
            most = {} if adaptive_most is None else {"maximum": adaptive_most}
            given = dict(description.adapt_params)
            cluster.adapt(**({**given, **most} if description.workers else {**most, **given}))
        return Client(cluster, set_as_default=False)
    except BaseException:
        cluster.close()
        raise


_CLIENTS: Mapping[str, Callable[[ClusterDescription], Client]] = {
    "local": _local,
    "manual": _manual,
    "slurm": _job_queue("SLURMCluster"),
    "sge": _job_queue("SGECluster"),
    "kubernetes": _kubernetes,
}
