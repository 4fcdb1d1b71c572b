"""`python -m newt.backup make|restore PLACE`: what `newt backup` and `newt restore` do, in the learner's image.

PLACE is a folder or s3://BUCKET/PATH. Redis and the data folder are the learner's, by its own settings. Where several
replay services share runs' tasks, NEWT_BACKUP_SHARDS has the addresses of the Redis of all but the first, in the order
of NEWT_LEARNER_REPLAY and separated by commas.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from pydantic import SecretStr

from newt.backup import making, restoring
from newt.errors import InvalidInputError, NewtError
from newt.security import redis_address


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m newt.backup", description=__doc__)
    parser.add_argument("action", choices=("make", "restore"))
    parser.add_argument("place", metavar="PLACE")
    parser.add_argument("--keep", type=int, help="PLACE is one of backups: add one, keep the newest so many")
    options = parser.parse_args()
    try:
        data = Path(_setting("NEWT_LEARNER_DATA_DIR"))
        shards = [address.strip() for address in os.environ.get("NEWT_BACKUP_SHARDS", "").split(",") if address.strip()]
        urls = [redis_address(SecretStr(url)) for url in (_setting("NEWT_LEARNER_REDIS_URL"), *shards)]
        if options.action == "restore":
            print(f"restored {options.place}: {restoring.restore(options.place, urls, data).summary()}")
        elif options.keep is not None:
            place, done = making.make_kept(options.place, options.keep, urls, data)
            print(f"{place}: {done.summary()}")
        else:
            print(f"{options.place}: {making.make(options.place, urls, data).summary()}")
    except (NewtError, OSError) as error:
        print(f"newt: {error}", file=sys.stderr)
        return 1
    return 0


def _setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise InvalidInputError(name, "is not set; give the learner's")
    return value


if __name__ == "__main__":
    sys.exit(main())
