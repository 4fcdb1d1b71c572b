"""What the soak makes of its samples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench import soak


def samples(mb: list[float], every_s: float = 5.0) -> list[soak.Sample]:
    return [soak.Sample(i * every_s, 1, value, 10, 5) for i, value in enumerate(mb)]


@pytest.mark.parametrize("mb_per_hour", [0.0, 1.5, 40.0])
def test_growth_is_found_under_what_comes_and_goes(mb_per_hour: float) -> None:
    """Every third sample holds two versions of the weights."""
    held = [300 + mb_per_hour * 5 * i / 3600 + 11 * (i % 3 == 0) for i in range(600)]
    slope, error = soak.slope_per_hour(samples(held))
    assert slope == pytest.approx(mb_per_hour, abs=0.05)
    assert error < 0.05


def test_only_processes_that_grow_are_marked_and_the_page_keeps_the_rest(tmp_path: Path) -> None:
    level, leak = samples([50.0] * 200), samples([50 + 0.1 * i for i in range(200)])
    rows = soak.rows({"level": level, "leak": leak, "young": samples([1.0] * 3)}, since_s=0.0)
    assert [(row.process, row.level) for row in rows] == [("leak", False), ("level", True)]
    measured = {
        "machine": {"machine.processor": "chip", "machine.cores": 2, "commit": "abc"},
        "load_average": 1.0,
        "measured_seconds": 1000,
        "ring_full_after_s": 60,
        "progress": {"env_steps": 1000, "updates": 10},
        "processes": [vars(row) for row in rows],
    }
    text = soak.markdown(measured)
    assert "**+72" in text
    page = tmp_path / "page.md"
    page.write_text(soak.PAGE.read_text())
    for _ in range(2):
        soak.update_page(page, text)
    assert page.read_text().count(text) == 1
    assert page.read_text().startswith(soak.PAGE.read_text()[:500])


def test_own_memory_is_what_a_process_wrote_not_what_it_read(tmp_path: Path) -> None:
    def grown(program: str) -> float:
        code = f"import sys; {program}; print('ready', flush=True); sys.stdin.read()"
        with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            held = soak.own_mb(process.pid)
            process.communicate()
        return held

    file = tmp_path / "file"
    file.write_bytes(bytes(50_000_000))
    reads = f"import mmap; f = open({str(file)!r}); m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)"
    nothing, read, written = grown("pass"), grown(f"{reads}; sum(m[::4096])"), grown("b = bytearray(b'1') * 50_000_000")
    assert read < nothing + 10
    assert 45 < written - nothing < 60
    with pytest.raises(psutil.NoSuchProcess):
        soak.own_mb(2**22 + 1)
