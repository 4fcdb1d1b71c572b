"""The file of people: what it may say, what is refused, and what holds when it changes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from newt.runs.people import Quotas, Role
from newt.security import SecurityError, SecuritySettings
from services.learner.people import People, Person
from services.learner.records.broken import BrokenRecords

TOKEN = "ada-0123456789abcdef"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()


def written(path: Path, text: str) -> Path:
    """A file with this text, put in place as a whole."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    os.replace(beside, path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.toml"


def test_each_token_is_somebodys(path: Path) -> None:
    written(
        path,
        f'[ada]\nrole = "user"\ntoken = "{TOKEN}"\nquotas = {{runs = 2, replay_rows = 1_000}}\n'
        f'["g.hopper@navy"]\nrole = "operator"\ntoken_sha256 = "{hashlib.sha256(b"x" * 32).hexdigest()}"\n',
    )
    people = People(path, BrokenRecords())
    assert people.find(TOKEN) == Person("ada", Role.USER, Quotas(runs=2, replay_rows=1_000))
    assert people.find("x" * 32) == Person("g.hopper@navy", Role.OPERATOR)
    assert [people.find(wrong) for wrong in ("", TOKEN[:-1], f"{TOKEN}0", DIGEST, "\xfc")] == [None] * 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names nobody"),
        ("[ada", "is not TOML"),
        ("ada = 1", "'ada' is no table"),
        (f'[ada]\ntoken = "{TOKEN}"', "'ada': role: Field required"),
        (f'[ada]\nrole = "admin"\ntoken = "{TOKEN}"', "role: Input should be 'reader', 'user' or 'operator'"),
        ('[ada]\nrole = "user"', "'ada': give either token or token_sha256"),
        (f'[ada]\nrole = "user"\ntoken = "{TOKEN}"\ntoken_sha256 = "{DIGEST}"', "either"),
        ('[ada]\nrole = "user"\ntoken = "sesame"', "token has 6 characters; expected at least 16"),
        (f'[ada]\nrole = "user"\ntoken_sha256 = "{DIGEST[:-1]}"', "token_sha256: String should match"),
        (f'[ada]\nrole = "user"\ntokn = "{TOKEN}"', "tokn: Extra inputs"),
        (f'[ada]\nrole = "user"\ntoken = "{TOKEN}"\nquotas = {{runs = -1}}', "quotas.runs: Input should be greater"),
        (f'[ada]\nrole = "user"\ntoken = "{TOKEN}"\nquotas = {{run = 1}}', "quotas.run: Extra inputs"),
        (f'["ada\\n"]\nrole = "user"\ntoken = "{TOKEN}"', "expected a name of 1 to 64"),
        (
            f'[ada]\nrole = "user"\ntoken = "{TOKEN}"\n[bob]\nrole = "user"\ntoken_sha256 = "{DIGEST}"',
            "'bob' has the token of 'ada'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_without_repeating_a_token(path: Path, text: str, said: str) -> None:
    with pytest.raises(SecurityError, match=said) as caught:
        People(written(path, text), BrokenRecords())
    assert str(caught.value).startswith("NEWT_API_TOKENS_FILE: ")
    assert not any(secret in str(caught.value) for secret in (TOKEN, DIGEST, "sesame"))


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(SecurityError, match=f"cannot read {path}: No such file"):
        People(path, BrokenRecords())


def test_it_is_read_again_when_it_changes_and_the_last_good_one_holds(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = BrokenRecords()
    people = People(written(path, f'[ada]\nrole = "user"\ntoken = "{TOKEN}"'), broken)
    for spoil in (lambda: written(path, f'[ada]\nrole = "boss"\ntoken = "{TOKEN}"'), path.unlink):
        spoil()
        people.refresh()
        assert people.find(TOKEN) == Person("ada", Role.USER)
        (said,) = broken.all()
        assert (said.kind, said.id) == ("people", "NEWT_API_TOKENS_FILE")
        assert "ada" not in said.error  # everybody may see it
    told = capsys.readouterr()
    assert "role: Input should be" in told.out + told.err
    written(path, f'[ada]\nrole = "reader"\ntoken = "{TOKEN}"')
    people.refresh()
    assert people.find(TOKEN) == Person("ada", Role.READER)
    assert broken.all() == []
    written(path, f'[bob]\nrole = "reader"\ntoken = "{TOKEN[::-1]}"')
    people.refresh()
    assert people.find(TOKEN) is None


def test_the_learner_takes_one_token_or_a_file_of_them(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SecuritySettings().tokens_of_learner() is None
    monkeypatch.setenv("NEWT_API_TOKENS_FILE", str(path))
    assert SecuritySettings().tokens_of_learner() == path
    monkeypatch.setenv("NEWT_API_TOKEN", TOKEN)
    with pytest.raises(SecurityError, match="both NEWT_API_TOKENS_FILE and NEWT_API_TOKEN"):
        SecuritySettings().tokens_of_learner()
    assert SecuritySettings().token() is not None  # the command line's own
