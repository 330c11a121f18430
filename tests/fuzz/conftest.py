"""The table of what the fuzz tests tried, printed, and written as JSON."""

import json
import os
import pathlib

import fuzzing
import pytest

_ledger = fuzzing.Ledger()


@pytest.fixture(scope="session")
def ledger() -> fuzzing.Ledger:
    return _ledger


def pytest_terminal_summary(terminalreporter):
    if not _ledger.outcomes:
        return
    areas = {
        area: {name: tally[name] for name in fuzzing.OUTCOMES}
        for area, tally in _ledger.outcomes.items()
    }
    total = {n: sum(row[n] for row in areas.values()) for n in fuzzing.OUTCOMES}
    terminalreporter.write_sep("-", f"fuzz, seed {fuzzing.SEED}")
    head = "".join(f"{name:>10}" for name in ("inputs", *fuzzing.OUTCOMES))
    terminalreporter.write_line(f"{'area':<16}{head}")
    for area, row in {**areas, "in all": total}.items():
        cells = "".join(f"{n:>10}" for n in (sum(row.values()), *row.values()))
        terminalreporter.write_line(f"{area:<16}{cells}")
    if "MMJAX_FUZZ_JSON" in os.environ:
        summary = {
            "seed": fuzzing.SEED,
            "inputs": sum(total.values()),
            "areas": areas,
            "in_all": total,
            "failures": _ledger.failures,
        }
        text = json.dumps(summary, indent=1) + "\n"
        pathlib.Path(os.environ["MMJAX_FUZZ_JSON"]).write_text(text)
