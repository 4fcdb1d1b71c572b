"""The session for a machine with a GPU, dry, on the CPU; and what becomes of stages that hang or fail."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from bench.gpu import document, page, session
from bench.gpu.document import Notebook
from bench.gpu.session import STAGES, Stage

IN_PROCESS = [name for name in STAGES if name not in ("service", "sharing", "egl")]


@pytest.mark.parametrize("name", IN_PROCESS)
def test_a_stage_runs_on_the_cpu(name: str, tmp_path: Path) -> None:
    found, notebook = document.empty(), Notebook(tmp_path / "lines")
    session.run_stage(name, "cpu", True, notebook)
    notebook.pour_into(found)
    assert all(check["ok"] for check in found["correctness"]), found["correctness"]
    assert len(found["correctness"]) > 15 or name != "correct"
    keys = {figure["key"] for figure in found["figures"]}
    pairs = {"updates": "update.XS.b4.tf32", "plans": "plan.XS.rows2.eager"}
    assert name not in pairs or keys >= {pairs[name], f"{pairs[name]}.graph"}
    ceilings = {"copy_tb_s", "bf16_tflops", "launch_us", "launch_in_a_graph_us"}
    assert set(found["ceilings"]) >= (ceilings if name == "ceilings" else set())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_whole_session_runs_on_the_cpu(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    names = ["env", "warm", "service", "sharing", "egl"]
    found = session.run(output, "cpu", tiny=True, names=names)
    assert {stage["name"] for stage in found["stages"]} == set(names)
    assert [stage for stage in found["stages"] if stage["rc"] != 0] == []
    assert found["machine"]["torch"]
    keys = {figure["key"] for figure in found["figures"]}
    assert keys >= {"service.XS.clients2.rows2.rate", "swap.weights.XS.first_use", "sharing.updates.together"}
    assert keys >= {"service.XS.clients2.rows2.graph.rate", "swap.weights.XS.first_use.graph"}
    assert document.read(output) == found
    assert list(tmp_path.iterdir()) == [output]
    with pytest.raises(ValueError, match="dry run"):
        page.write(found)


HANGS = """
import time
def run(device, effort, notebook):
    notebook.figure("a", "ms", [1.0])
    time.sleep(600)
"""
FAILS = """
def run(device, effort, notebook):
    raise RuntimeError("no such card")
"""
WORKS = """
def run(device, effort, notebook):
    notebook.figure("b", "ms", [1.0, 2.0, 3.0])
    notebook.check("c", 2.0, 1.0)
"""


def test_a_stage_that_hangs_or_fails_costs_itself_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"hangs": HANGS, "fails": FAILS, "works": WORKS}.items():
        (tmp_path / f"stage_{name}.py").write_text(text)
    # Stages are looked up in the process that they run in, which has to know them too.
    (tmp_path / "sitecustomize.py").write_text(
        "from bench.gpu.session import STAGES, Stage\n"
        "STAGES.update({n: Stage(f'stage_{n}', 60) for n in ('hangs', 'fails', 'works')})\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).resolve().parents[3]}")
    stages = {"hangs": Stage("stage_hangs", 30), "fails": Stage("stage_fails", 60), "works": Stage("stage_works", 60)}
    monkeypatch.setattr(session, "STAGES", stages)
    begun = time.monotonic()
    found = session.run(tmp_path / "gpu.json", "cpu", tiny=False, names=list(stages))
    assert time.monotonic() - begun < 200
    endings = {stage["name"]: (stage["killed"], stage["rc"]) for stage in found["stages"]}
    assert endings == {"hangs": (True, -9), "fails": (False, 1), "works": (False, 0)}
    assert found["stages"][1]["error"] == "RuntimeError: no such card"
    assert [(figure["key"], figure["median"]) for figure in found["figures"]] == [("a", 1.0), ("b", 2.0)]
    assert found["correctness"] == [{"name": "c", "error": 2.0, "tolerance": 1.0, "ok": False}]
    text = page.tables(found)
    assert "killed at its limit" in text
    assert "| c | 2 | 1 | **no** |" in text


def test_a_line_that_was_cut_off_is_dropped_and_the_page_keeps_its_words(tmp_path: Path) -> None:
    found, path = {**document.empty(), "commit": "c", "date": "d", "device": "cuda", "tiny": False}, tmp_path / "lines"
    notebook = Notebook(path)
    notebook.table("ceilings", {"copy_tb_s": 4.3})
    path.write_text(path.read_text() + json.dumps(["figures", {"key": "x"}])[:-5])
    notebook.pour_into(found)
    assert found["ceilings"] == {"copy_tb_s": 4.3}
    assert found["figures"] == []
    written = tmp_path / "gpu.md"
    written.write_text(page.PAGE.read_text())
    for _ in range(2):
        page.write(found, written)
    text = written.read_text()
    assert text.count("copy_tb_s") == 1
    assert text.startswith("# On a GPU")
    assert "## What is known without one" in text
