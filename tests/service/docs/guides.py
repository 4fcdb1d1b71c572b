"""A guide of docs/ as somebody follows it who has the wheel and an empty folder: block after block."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from installed_wheel import ROOT, environment

TIMEOUT_S = 500.0


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block of shell or Python in docs/PAGE.md, in order."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    return re.findall(r"^```(bash|python)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[list[str]]:
    """The words of each line of a block of shell; comments are no words."""
    lines = (shlex.split(line, comments=True) for line in block.replace("\\\n", " ").splitlines())
    return [words for words in lines if words]


class Reader:
    """Calls what a guide says.

    Args:
        programs: Folder of the installed programs.
        folder: Where the reader is.
        home: Newt's home folder.
    """

    def __init__(self, programs: Path, folder: Path, home: Path) -> None:
        self.programs, self.folder, self.home = programs, folder, home
        path = os.pathsep.join([str(programs), os.environ["PATH"]])
        self.environment = environment(PATH=path, NEWT_HOME=str(home), COLUMNS="200")

    def call(self, *words: str) -> str:
        """Calls a program, which must succeed; returns what it prints."""
        done = subprocess.run(
            words, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=TIMEOUT_S
        )
        assert done.returncode == 0, (words, done.stdout[-4000:], done.stderr[-4000:])
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts a program that runs until it is told to end."""
        return subprocess.Popen(words, env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, text=True)
