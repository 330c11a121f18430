"""The fastest mesh that holds a config's step, of those that a few compilations try."""

import dataclasses
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from mmjax.errors import UserError
from mmjax.planning import program as program_lib
from mmjax.planning.estimate import USABLE, Estimate, estimate
from mmjax.planning.hardware import Hardware
from mmjax.planning.program import Program

TENSOR = 8  # devices along the tensor axis, at most: beyond, messages rule
TRIED = 5  # meshes that are compiled


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A mesh that was compiled."""

    program: Program
    plan: Estimate

    @property
    def rank(self) -> tuple[bool, float]:
        """Those that fit first, then the faster where no message hides."""
        return not self.plan.fits, self.plan.step_unhidden


def meshes(devices: int, batch_size: int) -> list[dict[str, int]]:
    """All that split a batch over so many devices, those that split the state least
    first: every further split is more messages."""
    listed = [
        {"data": devices // (fsdp * tensor), "fsdp": fsdp, "tensor": tensor}
        for fsdp in range(1, devices + 1)
        for tensor in range(1, TENSOR + 1)
        if devices % (fsdp * tensor) == 0 and batch_size % (devices // tensor) == 0
    ]
    return sorted(
        listed, key=lambda mesh: (mesh["fsdp"] * mesh["tensor"], *mesh.values())
    )


def search(
    config: ConfigDict,
    hardware: Hardware,
    devices: int,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> list[Candidate]:
    """The meshes that were compiled, the best first.

    A mesh whose state alone is too large is passed over without compiling. So is one
    of which an axis divides no parameter.

    Raises:
      UserError: none holds the state.
    """
    candidates: list[Candidate] = []
    least, refused = float("inf"), None
    for mesh in meshes(devices, config.batch_size):
        config = placed(config, mesh)
        try:
            state = program_lib.state_bytes(config)
        except UserError as error:
            refused = error
            continue
        least = min(least, state)
        if state > USABLE * hardware.memory:
            continue
        say(", ".join(f"{axis}={n}" for axis, n in mesh.items()))
        built = program_lib.build(config, hardware.platform)
        candidates.append(Candidate(built, estimate(built, hardware)))
        if len(candidates) == TRIED:
            break
    if candidates:
        return sorted(candidates, key=lambda one: one.rank)
    if least == float("inf"):
        raise refused or UserError(
            f"no mesh of {devices} devices splits batch {config.batch_size}: use a "
            f"batch that is a multiple of {devices}"
        )
    raise UserError(
        f"on {devices} x {hardware.name} the state alone is {least / 1e9:.1f} GB a "
        f"device at the least, and {USABLE * hardware.memory / 1e9:.1f} are usable: "
        "take more devices (--devices), or devices with more memory (--hardware)"
    )


def placed(config: ConfigDict, mesh: Mapping[str, int]) -> ConfigDict:
    """A copy of a config with another mesh."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.parallel.mesh = ConfigDict(dict(mesh))
    return config
