"""Generates the Python stubs of protos/newt/v1 into newt/wire/v1 (`make protos`).

With --check, generates into a temporary folder and fails if the committed stubs differ.
"""

from __future__ import annotations

import argparse
import filecmp
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
HOME = ROOT / "newt" / "wire" / "v1"


def generate(target: Path) -> None:
    """Writes all stubs (.py and .pyi) to `target`."""
    names = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("newt/v1/*.proto"))
    with tempfile.TemporaryDirectory() as out:
        flags = [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        flags += ["--mypy_opt=quiet", "--mypy_grpc_opt=quiet"]
        bin_dir = str(Path(sys.executable).parent)
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *flags, *names],
            check=True,
            env={"PATH": f"{bin_dir}:/usr/bin:/bin"},
        )
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(Path(out, "newt", "v1").iterdir()):
            text = path.read_text()
            text = re.sub(r"^(from|import) newt\.v1", r"\1 newt.wire.v1", text, flags=re.M)
            text = text.replace("import newt.v1", "import newt.wire.v1")
            text = re.sub(r"(?<![\w.'/\"])newt\.v1\.(\w+_pb2)", r"newt.wire.v1.\1", text)
            (target / path.name).write_text(text)
        (target / "__init__.py").write_text('"""Stubs generated from protos/newt/v1; do not edit."""\n')


def main() -> int:
    """Runs the generator; returns the process's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the committed stubs are stale")
    if not parser.parse_args().check:
        generate(HOME)
        return 0
    with tempfile.TemporaryDirectory() as fresh:
        generate(Path(fresh))
        names = {path.name for path in Path(fresh).iterdir()}
        committed = {path.name for path in HOME.iterdir() if path.is_file()}
        _, differ, missing = filecmp.cmpfiles(fresh, HOME, names, shallow=False)
        stale = sorted({*differ, *missing, *(committed - names)})
    if stale:
        print(f"stale generated code, run `make protos`: {', '.join(stale)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
