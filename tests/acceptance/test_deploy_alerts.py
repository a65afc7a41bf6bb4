"""The alerts that the README of `deploy/` advises: they ask for what is served, and go off when they must.

What a scheduler serves is what `overnight.service.metrics` makes of a standing; when an alert goes off is judged by
Prometheus' own `promtool`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from overnight.service.metrics import Metrics, Standing
from tests.support.deploy import DEPLOY

_ROW = re.compile(r"^\| `([^`]*overnight_[^`]*)`(?: for (\w+) minutes?)? \|", re.MULTILINE)
_MINUTES = {None: 0, "a": 1, "ten": 10}


class Alert(NamedTuple):
    expression: str
    minutes: int


def alerts() -> list[Alert]:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    return [Alert(row[1], _MINUTES[row[2]]) for row in _ROW.finditer(text)]


def alert_on(metric: str) -> Alert:
    """The one alert that looks at this metric first."""
    [found] = [one for one in alerts() if (re.search(r"overnight_\w+", one.expression) or [""])[0] == metric]
    return found


def test_alerts_ask_for_metrics_that_are_served() -> None:
    one = {"default": 1}
    standing = Standing(0.0, 1, 1, {"done": 1}, one, one, one, {("default", "busy"): 1.0}, {"here": 1.0})
    samples = [sample for family in Metrics().registry.collect() for sample in family.samples]
    served = {sample.name for sample in samples} | {family.name for family in standing.families()}
    phases = {one.labels["phase"]: one.value for one in samples if one.name == "overnight_ended_runs_total"}
    assert phases == {"succeeded": 0, "failed": 0, "cancelled": 0}, "its first increase would go unseen"
    assert len(alerts()) == 4
    assert {name for one in alerts() for name in re.findall(r"overnight_\w+", one.expression)} <= served


def goes_off(alert: Alert, series: dict[str, str], directory: Path) -> bool:
    """Whether the alert is firing after twenty minutes of these samples, one every 15 s."""
    rule = {"alert": "asked", "expr": alert.expression, "for": f"{alert.minutes}m"}
    (directory / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": [rule]}]}))
    given = [{"series": name, "values": values} for name, values in series.items()]
    ask = {"eval_time": "20m", "expr": 'count(ALERTS{alertstate="firing"}) or vector(0)'}
    judged = []
    for number in (0, 1):
        expected = {**ask, "exp_samples": [{"labels": "{}", "value": number}]}
        test = {"interval": "15s", "input_series": given, "promql_expr_test": [expected]}
        (directory / "test.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [test]}))
        words = ["promtool", "test", "rules", "test.yaml"]
        judged.append(subprocess.run(words, cwd=directory, capture_output=True, check=False).returncode == 0)
    assert judged[0] != judged[1]
    return judged[1]


def both(first: str, second: str) -> dict[str, str]:
    """Two schedulers of which each says whether it dispatches."""
    name = "overnight_dispatching"
    return {f'{name}{{instance="one"}}': first, f'{name}{{instance="two"}}': second}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="apt-get install prometheus")
@pytest.mark.parametrize(
    ("metric", "series", "fires"),
    [
        ("overnight_dispatching", both("1x100", "0x100"), False),
        ("overnight_dispatching", both("0x100", "0x100"), True),
        ("overnight_dispatching", both("1x40 stale", "0x40 stale"), True),
        ("overnight_queue_depth", {'overnight_queue_depth{queue="big"}': "2x100"}, True),
        (
            "overnight_queue_depth",
            {
                'overnight_queue_depth{queue="big"}': "2x100",
                'overnight_workers{queue="default",doing="busy"}': "3x100",
                'overnight_workers{queue="big",doing="draining"}': "1x100",
            },
            True,
        ),
        (
            "overnight_queue_depth",
            {
                'overnight_queue_depth{queue="big"}': "2x100",
                'overnight_workers{queue="big",doing="busy"}': "1x100",
            },
            False,
        ),
        ("overnight_queue_depth", {'overnight_queue_depth{queue="big"}': "0x100"}, False),
        ("overnight_lost_batches_total", {"overnight_lost_batches_total": "0x60 1x40"}, True),
        ("overnight_lost_batches_total", {"overnight_lost_batches_total": "1x100"}, False),
        ("overnight_ended_runs_total", {'overnight_ended_runs_total{phase="failed"}': "0x60 1x40"}, True),
    ],
)
def test_an_alert_goes_off_when_it_must(metric: str, series: dict[str, str], fires: bool, tmp_path: Path) -> None:
    """Prometheus keeps no sample of what is not there: a queue without workers, a scheduler that is gone."""
    assert goes_off(alert_on(metric), series, tmp_path) is fires
