"""Put one instance into a store, compare it and print how long that took; the memory of this process is measured."""

import json
import sys
import time
from pathlib import Path

from coverslip.stores.base import InstanceUids, LocalInstance
from coverslip.stores.options import RetryPolicy, StoreDefault, StoreOptions, TokenFromEnvironment
from coverslip.stores.registry import open_store

if __name__ == "__main__":
    url, described, endpoint, chunk_bytes = sys.argv[1:]
    told = json.loads(described)
    instance = LocalInstance(**{**told, "path": Path(told["path"]), "uids": InstanceUids(**told["uids"])})
    options = StoreOptions(
        retry=RetryPolicy(seed=1),
        chunk_bytes=int(chunk_bytes),
        endpoint_url=endpoint,
        credentials=TokenFromEnvironment("TOKEN") if endpoint else StoreDefault(),
    )
    with open_store(url, options) as store:
        start = time.perf_counter()
        sent = []
        store.put(instance, sent.append)
        wall_s = time.perf_counter() - start
        assert sum(sent) == instance.size_bytes
        assert store.compare(instance, (1, 2)).equal
    json.dump({"put_s": wall_s}, sys.stdout)
