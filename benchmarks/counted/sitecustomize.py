"""Put on a gateway's PYTHONPATH: at SIGUSR2 it writes down how many objects of each type it has, to the file $COUNT_OBJECTS_TO.

A leak shows as a type whose number grows with what has been done, not with what there is.
"""

from __future__ import annotations

import gc
import json
import os
import signal
from collections import Counter
from pathlib import Path


def _write(_signal: int, _frame: object) -> None:
    gc.collect()
    counts = Counter(f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects())
    file = Path(os.environ["COUNT_OBJECTS_TO"])
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(counts))
    fresh.rename(file)


if "COUNT_OBJECTS_TO" in os.environ:
    signal.signal(signal.SIGUSR2, _write)
