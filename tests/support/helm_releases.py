"""What Helm does with a chart, by Helm's own code (helm-sdkpy), without a cluster.

Helm's library knows no `template`, so a release is installed: into a server that answers as the API of an empty cluster
does, keeps what it is sent, and starts nothing. Run as a program, so that Helm's threads are in a process of their own:
jobs come as JSON on the standard input, results go to the standard output in their order.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kubernetes_api import Cluster

NOT_FOR_THIS_MACHINE = 3  # exit status: the package has no library for it


def helm(*jobs: dict[str, Any]) -> list[dict[str, Any]]:
    """Lets Helm work.

    Args:
        jobs: Each has `do`, which is `lint`, `package` or `install`, a `chart`, and what that wants besides: `values`
            and `namespace` of an installation, `out` of a package. An installation that has `upgrade`, other values, is
            brought to those.

    Returns:
        Of each job, `result`, and the `objects` that an installation has sent, with the `patches` and the `removed` of
        an upgrade, by path; or `error`, Helm's text.
    """
    command = [sys.executable, str(Path(__file__))]
    # Helm keeps its own records in memory: to a cluster it would send them in Kubernetes' protocol buffers.
    environment = {**os.environ, "HELM_DRIVER": "memory"}
    done = subprocess.run(command, input=json.dumps(jobs), env=environment, capture_output=True, text=True, timeout=400)
    if done.returncode == NOT_FOR_THIS_MACHINE:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results


async def _done(job: dict[str, Any]) -> dict[str, Any]:
    import helm_sdkpy

    cluster = Cluster()
    namespace = job.get("namespace", "newt")
    config = helm_sdkpy.Configuration(namespace=namespace, kubeconfig=cluster.kubeconfig())
    try:
        if job["do"] == "lint":
            return {"result": await helm_sdkpy.Lint(config).run(job["chart"])}
        if job["do"] == "package":
            return {"result": await helm_sdkpy.Package(config).run(job["chart"], job["out"])}
        await helm_sdkpy.Install(config).run("newt", job["chart"], job.get("values"), wait=False)
        if "upgrade" in job:
            await helm_sdkpy.Upgrade(config).run("newt", job["chart"], job["upgrade"], wait=False)
    except (helm_sdkpy.InstallError, helm_sdkpy.ChartError) as error:
        return {"error": str(error), "objects": list(cluster.objects.values())}
    objects = list(cluster.objects.values())
    return {"result": job["do"], "objects": objects, "patches": cluster.patches, "removed": cluster.removed}


def main() -> None:
    import helm_sdkpy

    try:
        results = [asyncio.run(_done(job)) for job in json.load(sys.stdin)]
    except helm_sdkpy.HelmLibraryNotFound as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_FOR_THIS_MACHINE)
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
