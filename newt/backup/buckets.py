"""A backup in a bucket of any storage that speaks S3's protocol.

The client is boto3, which takes the address, the keys and the region from where every program of its kind does:
AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_CA_BUNDLE, a file of profiles, or the
role of a pod.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, cast

from newt.backup.places import S3, Sink
from newt.errors import ForbiddenError, InvalidInputError, NewtError, NotFoundError, UnavailableError
from newt.extras import require

# A file may have 10,000 parts, so 320 GB; two parts are in memory at most. 5 MiB is the least that storages take.
PART_BYTES = 32 * 2**20
READ_BYTES = 8 * 2**20
_TRIES = 3
_CONNECT_S, _READ_S = 10, 60
_REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")


def connect() -> Any:
    """A client, of the storage and with the keys that the environment names."""
    require("boto3", "s3")
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    # Checksums that not every storage knows are left out; the manifest has a SHA-256 of everything.
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return boto3.Session().client("s3", config=config)
    except (BotoCoreError, ValueError) as error:
        raise InvalidInputError("AWS_ENDPOINT_URL_S3, AWS_REGION or AWS_PROFILE", str(error)) from error


class BucketPlace:
    """Objects below a prefix.

    BucketPlace.of("s3://bucket/newt/monday").put("manifest.json", b"{}")
    """

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix

    @classmethod
    def of(cls, address: str) -> BucketPlace:
        """The place of an address s3://BUCKET/PATH; the path may be left out."""
        bucket, _, path = address.removeprefix(S3).partition("/")
        path = path.strip("/")
        parts = path.split("/") if path else []
        if not bucket or any(part in ("", ".", "..") for part in parts):
            raise InvalidInputError("PLACE", f"got {address}, expected {S3}BUCKET/PATH")
        return cls(connect(), bucket, path)

    def __str__(self) -> str:
        return f"{S3}{self._bucket}/{self._prefix}".rstrip("/")

    def entries(self) -> list[str]:
        """See Place; a bucket has nothing but names."""
        start = self._key("")
        found = set()
        for page in self._pages(start, Delimiter="/"):
            found |= {item["Key"] for item in page.get("Contents", ())}
            found |= {item["Prefix"] for item in page.get("CommonPrefixes", ())}
        # Consoles make a "folder" as an empty object with the folder's name.
        return sorted({key.removeprefix(start).strip("/") for key in found} - {""})

    def has(self, name: str) -> bool:
        """See Place."""
        return self._size(name) is not None

    @contextmanager
    def create(self, name: str, mtime_ns: int | None = None) -> Iterator[Sink]:
        """See Place; times are not kept, as storages set their own."""
        upload = _Upload(self, self._client, {"Bucket": self._bucket, "Key": self._key(name)})
        try:
            yield upload
            upload.finish()
        except BaseException:
            upload.abort()
            raise

    def put(self, name: str, data: bytes) -> None:
        """See Place."""
        with self.create(name) as out:
            out.write(data)

    def open(self, name: str) -> BinaryIO:
        """See Place."""
        size = self._size(name)
        if size is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self}/{name}")
        raw = _Reader(self, self._client, {"Bucket": self._bucket, "Key": self._key(name)}, size)
        return cast(BinaryIO, io.BufferedReader(raw, READ_BYTES))

    def child(self, name: str) -> BucketPlace:
        """See Place."""
        return BucketPlace(self._client, self._bucket, self._key(name))

    def clear(self, name: str) -> None:
        """See Place."""
        for page in self._pages(f"{self._key(name)}/"):
            self._delete([item["Key"] for item in page.get("Contents", ())])

    def remove(self, names: tuple[str, ...], *, itself: bool) -> bool:
        """See Place. Of a storage that does not answer, something is left."""
        try:
            for name in names:
                self._delete([self._key(name)])
                self.clear(name)
            self._abort_uploads()
            return not self.entries()
        except NewtError:
            return False

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Makes our errors of the client's."""
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            ParamValidationError,
            PartialCredentialsError,
        )

        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as error:
            what = "there are no keys for it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile or role"
            raise ForbiddenError(f"{self} cannot be used: {what}") from error
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            message = str(error.response.get("Error", {}).get("Message", "")) or code
            if code == "NoSuchBucket":
                raise NotFoundError(f"there is no bucket {self._bucket}; make it first") from error
            if code in _REFUSED:
                raise ForbiddenError(f"{self} cannot be used: the storage refuses these keys ({message})") from error
            raise UnavailableError(f"{self} cannot be used: the storage says {code}: {message}") from error
        except ParamValidationError as error:
            raise InvalidInputError("PLACE", f"{self} is no address in a bucket: {error}") from error
        except BotoCoreError as error:
            raise UnavailableError(f"{self} cannot be reached: {error}") from error

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _pages(self, prefix: str, **options: str) -> Iterator[Any]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix, **options)
        with self.translated():
            yield from pages

    def _size(self, name: str) -> int | None:
        """By a list, which is told apart from a missing bucket; the answer to HEAD has no words."""
        with self.translated():
            page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._key(name), MaxKeys=1)
        return next((int(item["Size"]) for item in page.get("Contents", ()) if item["Key"] == self._key(name)), None)

    def _delete(self, keys: list[str]) -> None:
        """One by one: storages do not agree on the checksum that a list of them needs."""
        for key in keys:
            with self.translated():
                self._client.delete_object(Bucket=self._bucket, Key=key)

    def _abort_uploads(self) -> None:
        """Those of processes that were killed cost space, and no list shows them."""
        with self.translated():
            found = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._key(""))
        for item in found.get("Uploads", ()):
            with self.translated():
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=item["Key"], UploadId=item["UploadId"])


class _Upload:
    """Writes an object: in one request, or in parts if it is large."""

    def __init__(self, place: BucketPlace, client: Any, address: dict[str, str]) -> None:
        self._place, self._client, self._address = place, client, address
        self._waiting = bytearray()
        self._upload_id: str | None = None
        self._parts: list[dict[str, Any]] = []

    def write(self, data: bytes, /) -> None:
        self._waiting += data
        while len(self._waiting) >= PART_BYTES:
            self._send(bytes(memoryview(self._waiting)[:PART_BYTES]))
            del self._waiting[:PART_BYTES]

    def finish(self) -> None:
        if self._upload_id is None:
            with self._place.translated():
                self._client.put_object(**self._address, Body=bytes(self._waiting))
            return
        if self._waiting:
            self._send(bytes(self._waiting))
        with self._place.translated():
            self._client.complete_multipart_upload(
                **self._address, UploadId=self._upload_id, MultipartUpload={"Parts": self._parts}
            )
        self._upload_id = None

    def abort(self) -> None:
        if self._upload_id is not None:
            with suppress(NewtError), self._place.translated():  # what led here is what is worth telling
                self._client.abort_multipart_upload(**self._address, UploadId=self._upload_id)

    def _send(self, data: bytes) -> None:
        number = len(self._parts) + 1
        with self._place.translated():
            if self._upload_id is None:
                self._upload_id = str(self._client.create_multipart_upload(**self._address)["UploadId"])
            done = self._client.upload_part(**self._address, UploadId=self._upload_id, PartNumber=number, Body=data)
        self._parts.append({"PartNumber": number, "ETag": done["ETag"]})


class _Reader(io.RawIOBase):
    """Reads an object range by range: no connection is held, however slowly somebody reads."""

    def __init__(self, place: BucketPlace, client: Any, address: dict[str, str], size: int) -> None:
        self._place, self._client, self._address = place, client, address
        self._size, self._at = size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end == self._at:
            return 0
        with self._place.translated():
            data = self._range(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _range(self, start: int, end: int) -> bytes:
        from botocore.exceptions import BotoCoreError

        for left in reversed(range(_TRIES)):
            try:
                reply = self._client.get_object(**self._address, Range=f"bytes={start}-{end - 1}")
                return bytes(reply["Body"].read())
            except BotoCoreError:  # boto3 itself repeats requests, not reading what they bring
                if not left:
                    raise
        raise AssertionError
