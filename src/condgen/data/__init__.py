"""Data: sources are prepared once into a memory-mapped store, from which training gathers batches by row.

`load` opens a set by its name or path; `available` lists the names that are known.
"""

from condgen.data.sources import available, load
from condgen.data.store import Batch, Dataset

__all__ = ["Batch", "Dataset", "available", "load"]
