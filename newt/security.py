"""The switches of security, common to all services and the command line: docs/security.md says what each protects."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from newt.errors import NewtError

# RFC 6750, section 2.1; the length keeps guessing hopeless.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,}=*")
TOKEN_EXPECTED = "expected at least 16 out of letters, digits and ._~+/- (for example from `openssl rand -hex 32`)"
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


class SecurityError(NewtError, ValueError):
    """A switch is set to something that cannot work: nothing must run unprotected because of it."""


class SecuritySettings(BaseSettings):
    """What protects the connections. None of it is on unless it is set.

    Raises:
        SecurityError: A variable looks like one of these and is none.
    """

    # An error must not repeat what was given: it may be a secret.
    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_prefix="NEWT_", hide_input_in_errors=True)

    tls_dir: Path | None = Field(
        None,
        description="Turns mutual TLS on, for every gRPC server and client: a folder with ca.crt, tls.crt and tls.key.",
    )
    tls_callers: Literal["named", "any"] = Field(
        "named",
        description="With mutual TLS, who may call a method. named: certificates with the names that docs/security.md "
        "lists for it; any: every certificate of the authority.",
    )
    grpc_reflection: bool | None = Field(
        None,
        description="Whether gRPC servers describe their methods to whoever may call them (reflection, which grpcurl "
        "asks for). Unless it is set: without mutual TLS.",
    )
    api_token: SecretStr | None = Field(
        None, description="Turns the REST API's bearer token on; the command line sends it. At least 16 characters."
    )
    api_token_file: Path | None = Field(None, description="File with that token, in place of it.")
    api_tokens_file: Path | None = Field(
        None,
        description="Of the learner, in place of the one token: a TOML file with a token for each person "
        "(docs/security.md).",
    )
    redis_password_file: Path | None = Field(
        None, description="File with the password of the user in replay's and the learner's REDIS_URL."
    )

    def __init__(self) -> None:
        super().__init__()
        # A misspelt switch would be one that is off.
        known = {f"NEWT_{name}".upper() for name in type(self).model_fields}
        groups = ("NEWT_TLS", "NEWT_API", "NEWT_REDIS_PASSWORD", "NEWT_GRPC")
        unknown = sorted(name for name in os.environ if name.startswith(groups) and name not in known)
        if unknown:
            raise SecurityError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")

    @property
    def reflects(self) -> bool:
        """Whether gRPC servers describe their methods."""
        return self.tls_dir is None if self.grpc_reflection is None else self.grpc_reflection

    def token(self) -> SecretStr | None:
        """The token that REST requires; None for none.

        Raises:
            SecurityError: It cannot be read, or is no good token.
        """
        if self.api_token is not None and self.api_token_file is not None:
            raise SecurityError("both NEWT_API_TOKEN and NEWT_API_TOKEN_FILE are set; give one")
        token = self.api_token
        if self.api_token_file is not None:
            token = _read("NEWT_API_TOKEN_FILE", self.api_token_file)
        if token is not None and not is_token(token):
            raise SecurityError(
                f"the API token (NEWT_API_TOKEN or its file) has {len(token)} characters; {TOKEN_EXPECTED}"
            )
        return token

    def tokens_of_learner(self) -> SecretStr | Path | None:
        """What REST requires: the one token, or one of those in a file; None for nothing.

        Raises:
            SecurityError: The token cannot be read, or is no good token; or there is a file with tokens beside it.
        """
        token = self.token()
        if token is not None and self.api_tokens_file is not None:
            raise SecurityError(
                "both NEWT_API_TOKENS_FILE and NEWT_API_TOKEN (or its file) are set for the learner; give one, and "
                "name whoever had the one token in the file, as operator"
            )
        return token if self.api_tokens_file is None else self.api_tokens_file

    def redis_password(self) -> SecretStr | None:
        """The password of Redis; None if it is in the address, or there is none.

        Raises:
            SecurityError: It cannot be read.
        """
        return None if self.redis_password_file is None else _read("NEWT_REDIS_PASSWORD_FILE", self.redis_password_file)


def is_token(token: SecretStr) -> bool:
    """Whether it may be a bearer token: nobody guesses it, and headers can carry it."""
    return _TOKEN.fullmatch(token.get_secret_value()) is not None


def redis_address(url: SecretStr) -> str:
    """The address of Redis with its password, for clients; not to be shown to anybody.

    Args:
        url: redis://, rediss:// (TLS) or unix:// address, with a user and a password if Redis wants them. The
            password may be left to NEWT_REDIS_PASSWORD_FILE.

    Raises:
        SecurityError: It is no address, or there are two passwords. The message does not repeat the address.
    """
    text = url.get_secret_value()
    expected = "expected redis://[user[:password]@]host:port/0, with %-escapes for special characters in the password"
    try:
        parts = urlsplit(text)
        valid = text.startswith(_REDIS_SCHEMES) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        # From None: the cause quotes pieces of the password.
        raise SecurityError(f"REDIS_URL is no address of Redis; {expected}") from None
    password = SecuritySettings().redis_password()
    if password is None:
        return text
    if parts.password:
        raise SecurityError("both REDIS_URL and NEWT_REDIS_PASSWORD_FILE have a password; give one")
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.rstrip(':')}:{quote(password.get_secret_value(), safe='')}@{host}").geturl()


def _read(name: str, path: Path) -> SecretStr:
    try:
        secret = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SecurityError(f"{name}: cannot read {path}: {reason}") from None
    if not secret:
        raise SecurityError(f"{name}: {path} is empty")
    return SecretStr(secret)
