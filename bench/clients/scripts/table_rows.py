"""pandas: a parquet file of a dataset, read where it lies. Prints the number of rows and a digest of them."""

import hashlib
import json
import sys

import pandas

rows = pandas.read_parquet(f"hf://datasets/{sys.argv[1]}/data/train-00000-of-00001.parquet").to_dict("records")
digest = hashlib.sha256()
for row in rows:
    digest.update(json.dumps(row, sort_keys=True).encode())
print(json.dumps({"rows": len(rows), "digest": digest.hexdigest()}))
