"""What a source needs to be installed, read from its text: nothing of it is run to find out."""

from __future__ import annotations

import ast
from pathlib import Path

from newt.errors import InvalidInputError

LIST_FILE = "requirements.txt"


def requirements(source: str) -> list[str]:
    """The requirements of a folder or file, as pip takes them, sorted; none of other sources, which are installed.

    They are those of `OwnTask(requirements=[...])` in its Python file, and the lines of a `requirements.txt` beside it.

    Raises:
        InvalidInputError: A list of them that is not written out.
    """
    path = Path(source).expanduser()
    if not source or not path.exists():
        return []
    folder, file = (path, path / "env.py") if path.is_dir() else (path.parent, path)
    found: set[str] = set()
    if file.is_file():
        found |= _declared(file)
    listed = folder / LIST_FILE
    if listed.is_file():
        lines = (line.partition(" #")[0].strip() for line in listed.read_text(encoding="utf-8").splitlines())
        found |= {line for line in lines if line and not line.startswith("#")}
    return sorted(found)


def _declared(file: Path) -> set[str]:
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return set()  # Whoever imports it says what is wrong.
    found: set[str] = set()
    for node in ast.walk(tree):
        name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
        if not isinstance(node, ast.Call) or name != "OwnTask":
            continue
        for keyword in node.keywords:
            if keyword.arg == "requirements":
                found |= _texts(file, keyword.value)
    return found


def _texts(file: Path, value: ast.expr) -> set[str]:
    try:
        texts = ast.literal_eval(value)
    except ValueError:
        texts = None
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise InvalidInputError(
            "requirements",
            f"{file}:{value.lineno}: it is read before the file is run; write a list of texts there, or a {LIST_FILE} "
            "beside the file",
        )
    return {text.strip() for text in texts}
