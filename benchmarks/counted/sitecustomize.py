"""Put on a gateway's PYTHONPATH: at SIGUSR2 it writes down what it has in memory, to the file $COUNT_OBJECTS_TO.

A leak shows as a type of objects whose number grows with what has been done, not with what there is; of what the collector does not know,
such as strings, in the number of blocks that the interpreter's allocator has given out. Resident memory tells less: what waited for the
collector and is free again stays with the process.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path


def _write(_signal: int, _frame: object) -> None:
    gc.collect()
    counts = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    file = Path(os.environ["COUNT_OBJECTS_TO"])
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps({"objects": counts, "blocks": sys.getallocatedblocks()}))
    fresh.rename(file)


if "COUNT_OBJECTS_TO" in os.environ:
    signal.signal(signal.SIGUSR2, _write)
