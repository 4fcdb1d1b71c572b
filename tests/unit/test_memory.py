"""Memory that a process gives back: seen from within one of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from newt.memory import ARENAS, available_bytes, resident_bytes

# Threads that are at work at once each take a heap of the allocator, if there is one left for them.
THREADS = """
import ctypes, re, sys, tempfile, threading
from newt.memory import return_large_blocks
if sys.argv[1] == "kept":
    return_large_blocks()
together = threading.Barrier(8)
def work():
    together.wait()
    blocks = [bytes(100_000) for _ in range(50)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
with tempfile.NamedTemporaryFile() as told:
    stream = ctypes.c_void_p(libc.fopen(told.name.encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    print(len(re.findall("<heap nr", told.read().decode())))
"""

# Chunks of weights that come and go in a thread, and something small behind them that stays.
CHUNKS = """
import sys, threading
from newt.memory import SMALL_BYTES, resident_bytes, return_large_blocks
return_large_blocks(*[SMALL_BYTES] * 2 if sys.argv[1] == "small" else [])
stays = []
def work():
    chunks = [b"x" * (1 << 20) for _ in range(24)]
    stays.extend(b"y" * 2000 for _ in range(100))
before = resident_bytes()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print((resident_bytes() - before) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_lies_behind_chunks_of_weights_does_not_keep_their_memory() -> None:
    def kept_mib(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", CHUNKS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert kept_mib("small") < 4 < 16 < kept_mib("as for batches")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_threads_share_few_heaps() -> None:
    def heaps(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", THREADS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert heaps("kept") <= ARENAS < heaps("plain")


def test_a_container_has_what_it_is_given(tmp_path: Path) -> None:
    machine = available_bytes(tmp_path)
    assert 0 < resident_bytes() < machine
    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path) == machine
    (tmp_path / "memory.max").write_text("123456\n")
    assert available_bytes(tmp_path) == 123456
