"""A source of records that are written down, for tests of fields."""

import numpy as np

from mmjax.data.records import BrokenRecord


class Records:
    """Records from a list; None stands for a broken one."""

    name = "listed"

    def __init__(self, records, class_names=()):
        self.records, self.class_names = records, tuple(class_names)

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        if self.records[i] is None:
            raise BrokenRecord(f"record {i}", "made so")
        return {"key": str(i), **self.records[i]}

    def texts(self):
        return (t for r in self.records if r for t in r.get("text", ()))

    def fingerprint(self):
        return "x"


class Columns(Records):
    """The same records as arrays in memory."""

    def __init__(self, **columns):
        self.columns = columns
        count = len(next(iter(columns.values())))
        records = [{k: v[i] for k, v in columns.items()} for i in range(count)]
        super().__init__(records)


def of(key, values):
    """One value a record."""
    return Records([{key: np.asarray(value)} for value in values])
