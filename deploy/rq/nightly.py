"""Every night at ten through RQ's own cron, for who runs RQ already.

    PYTHONPATH=deploy/rq rq cron nightly --url redis://localhost:6379/0
    PYTHONPATH=deploy/rq rq worker nightly --url redis://localhost:6379/0

`rq cron` puts a job on RQ's queue `nightly` when it is time; a plain RQ worker submits the pipeline and is free again.
Both belong to an RQ of your own: overnight's server takes no jobs of RQ. Its address is in OVERNIGHT_REDIS_URL of the
RQ worker, as for any client. PIPELINE says what runs, NIGHTLY when.
"""

from __future__ import annotations

import os
import subprocess

from rq import cron

PIPELINE = os.environ.get("PIPELINE", "/srv/overnight/pipeline.py:build")
NIGHTLY = os.environ.get("NIGHTLY", "0 22 * * *")


def submit() -> str:
    """Submit the pipeline and return the id of its run; a run that still goes on is attached to.

    What else the command has to say, above all why it failed, is in the log of the RQ worker.
    """
    words = ["overnight", "submit", PIPELINE, "--keep-going", "-d", "records", "--task-log-dir", "logs"]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


cron.register(submit, queue_name="nightly", cron=NIGHTLY)
