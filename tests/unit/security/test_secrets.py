"""The switches: what they take, what they refuse, and that they never repeat a secret."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import redis
from certificate_folders import SCRIPTS
from pydantic import SecretStr

from newt.local.redis_server import users
from newt.security import SecurityError, SecuritySettings, redis_address
from services.learner.settings import LearnerSettings
from services.replay.settings import ReplaySettings

COMPONENTS = ("learner", "planner", "replay", "sim", "client")
SECRET = "hunter2-hunter2-hunter2"


@pytest.fixture
def password_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "password"
    path.write_text("s3/cr#t@:%\n")
    monkeypatch.setenv("NEWT_REDIS_PASSWORD_FILE", str(path))
    return path


def test_everything_is_off_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SecuritySettings()
    assert (settings.tls_dir, settings.token(), settings.redis_password()) == (None, None, None)
    assert redis_address(SecretStr("redis://redis:6379/0")) == "redis://redis:6379/0"


@pytest.mark.parametrize(
    ("tls", "setting", "reflects"),
    [("", "", True), ("secrets", "", False), ("secrets", "true", True), ("", "false", False)],
)
def test_servers_describe_themselves_where_there_is_no_tls(
    tls: str, setting: str, reflects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NEWT_TLS_DIR", tls), ("NEWT_GRPC_REFLECTION", setting)):
        if value:
            monkeypatch.setenv(name, value)
    assert SecuritySettings().reflects is reflects


@pytest.mark.parametrize(
    ("value", "said"),
    [("", "has 0 characters"), ("hunter2", "has 7 characters"), ("ü" * 20, "letters"), ("a b" * 9, "27")],
)
def test_a_token_that_is_none_is_refused(value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEWT_API_TOKEN", value)
    with pytest.raises(SecurityError, match=said) as caught:
        SecuritySettings().token()
    assert not value or value not in str(caught.value)


def test_a_token_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    monkeypatch.setenv("NEWT_API_TOKEN_FILE", str(path))
    with pytest.raises(SecurityError, match=f"NEWT_API_TOKEN_FILE: cannot read {path}: No such file"):
        SecuritySettings().token()
    path.write_text(" \n")
    with pytest.raises(SecurityError, match="empty"):
        SecuritySettings().token()
    path.write_text(f"{SECRET}\n")
    token = SecuritySettings().token()
    assert token is not None
    assert token.get_secret_value() == SECRET
    assert SECRET not in repr(token)
    monkeypatch.setenv("NEWT_API_TOKEN", SECRET)
    with pytest.raises(SecurityError, match="both"):
        SecuritySettings().token()


def test_a_password_from_a_file_reaches_redis_as_it_is(password_file: Path) -> None:
    for given, user in (("redis://newt@redis:6379/0", "newt"), ("rediss://redis:6380/0?ssl_ca_certs=ca.crt", None)):
        kwargs = redis.Redis.from_url(redis_address(SecretStr(given))).connection_pool.connection_kwargs
        assert kwargs["password"] == "s3/cr#t@:%"
        assert (kwargs.get("username") or None) == user
        assert kwargs["host"] == "redis"
    with pytest.raises(SecurityError, match="both"):
        redis_address(SecretStr("redis://newt:other@redis:6379/0"))


@pytest.mark.parametrize("url", [f"redis://newt:{SECRET}/x@redis:6379/0", f"redis:{SECRET}", f"http://:{SECRET}@redis"])
def test_a_wrong_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SecurityError, match="expected redis://") as caught:
        redis_address(SecretStr(url))
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__  # a traceback does not show it either


@pytest.mark.parametrize(("settings", "prefix"), [(ReplaySettings, "NEWT_REPLAY"), (LearnerSettings, "NEWT_LEARNER")])
def test_settings_do_not_show_the_password(
    settings: type[ReplaySettings] | type[LearnerSettings], prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{prefix}_REDIS_URL", f"redis://newt:{SECRET}@redis/0")
    assert SECRET not in repr(settings()) + str(settings().model_dump(mode="json"))
    monkeypatch.setenv(f"{prefix}_PORT", "many")
    with pytest.raises(ValueError, match="port") as caught:
        settings()
    assert SECRET not in str(caught.value)


def test_the_processes_of_a_run_get_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"redis://newt:{SECRET}@redis/0"
    monkeypatch.setenv("NEWT_LEARNER_REDIS_URL", url)
    assert LearnerSettings().environment()["NEWT_LEARNER_REDIS_URL"] == url


def run_script(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [SCRIPTS / name, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_secrets_script_makes_private_files_once(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    made = run_script("secrets.sh", folder)
    assert made.returncode == 0, made.stderr
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "ca.key").stat().st_mode & 0o077 == 0
    contents = read(folder)
    assert set(contents) == {
        *("ca.crt", "ca.key", "tls.crt", "tls.key"),
        *(f"{component}/{name}" for component in COMPONENTS for name in ("ca.crt", "tls.crt", "tls.key")),
        *("api-token", "redis-password", "redis-users.acl"),
    }
    password = contents["redis-password"].strip()
    # One set of rights, wherever Redis runs.
    assert contents["redis-users.acl"] == users(password)
    for secret in (password, contents["api-token"].strip()):
        assert len(secret) == 64
        assert secret not in made.stdout + made.stderr + contents["redis-users.acl"]

    for script in ("secrets.sh", "certificates.sh"):
        refused = run_script(script, folder)
        assert refused.returncode == 1
        assert "is there already" in refused.stderr
    assert read(folder) == contents
    assert run_script("secrets.sh", "--force", folder).returncode == 0
    assert not set(read(folder).values()) & set(contents.values())


@pytest.mark.parametrize("older", [False, True])
def test_certificates_are_renewed_by_the_same_authority(tmp_path: Path, older: bool) -> None:
    assert run_script("certificates.sh", tmp_path).returncode == 0
    if older:  # as scripts/certificates.sh left it when there was one certificate for all
        for component in COMPONENTS:
            shutil.rmtree(tmp_path / component)
    before = read(tmp_path)
    names = ("newt.example.com", "192.0.2.7", "sim-mine", "replay-3", "learner")
    assert run_script("certificates.sh", "--renew", tmp_path, *names).returncode == 0
    after = read(tmp_path)
    folders = ["", *(f"{component}/" for component in COMPONENTS)]
    changed = {name for name in after if after[name] != before.get(name)}
    authorities = {f"{component}/ca.crt" for component in COMPONENTS}
    assert changed - authorities == {f"{folder}{name}" for folder in folders for name in ("tls.crt", "tls.key")}
    assert {after[name] for name in authorities} == {before["ca.crt"]}
    for folder in folders:
        shown = certificate_names(tmp_path / folder / "tls.crt")
        assert {"localhost", "newt.example.com", "192.0.2.7"} <= shown, folder
        assert ("sim-mine" in shown) == (folder in ("", "sim/")), folder
        for shard in ("replay-1", "replay-2", "replay-3"):
            assert (shard in shown) == (folder in ("", "replay/")), folder
        # What a certificate may do is in these names: a component's is in its own certificate alone.
        assert shown & set(COMPONENTS) == (set(COMPONENTS) if not folder else {folder.rstrip("/")})
        assert (tmp_path / folder / "tls.key").stat().st_mode & 0o077 == 0


def read(folder: Path) -> dict[str, str]:
    """Contents of all files below a folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def certificate_names(path: Path) -> set[str]:
    command = ["openssl", "x509", "-in", path, "-noout", "-ext", "subjectAltName"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    return set(re.findall(r"(?:DNS|IP Address):([^,\s]+)", shown))
