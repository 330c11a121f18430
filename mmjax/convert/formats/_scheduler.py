"""diffusers' scheduler_config.json: a noise schedule, and the sampler to draw with."""

from collections.abc import Mapping
from typing import Any

from mmjax import schema
from mmjax.convert.formats import _clip_config
from mmjax.errors import UserError

SAMPLERS = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "DPMSolverMultistepScheduler": "dpm_solver",
    "EulerDiscreteScheduler": "euler",
    "HeunDiscreteScheduler": "heun",
    "PNDMScheduler": "plms",
}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
KINDS = {"linear": "linear", "scaled_linear": "scaled_linear"}
KINDS |= {"squaredcos_cap_v2": "cosine"}
# What diffusers' classes have where the file leaves a key out
_DEFAULTS = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
    "rescale_betas_zero_snr": False,
    "steps_offset": 0,
}
_LEADING = ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler")
# What the file has to say, where it says something
_FIXED = {
    "trained_betas": None,
    "thresholding": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "use_lu_lambdas": False,
    "use_flow_sigmas": False,
    "algorithm_type": "dpmsolver++",
    "solver_order": 2,
    "solver_type": "midpoint",
    "final_sigmas_type": "zero",
    "interpolation_type": "linear",
    "timestep_type": "discrete",
    "variance_type": "fixed_small",
}
STEPS, GUIDANCE = 50, 7.5  # of diffusers' pipeline, in no file


def fields(theirs: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`prediction`, `schedule` and `sampling` of `config.task`.

    Raises:
      UserError: a scheduler, or an option of one, that ours have not.
    """
    kind = theirs.get("_class_name")
    if kind not in SAMPLERS:
        hint = schema.suggest(kind, SAMPLERS)
        raise UserError(
            f"{where} is for a {kind}, which ours have not{hint}: put one of these in "
            "its place, they read the same keys"
        )
    for key, value in _FIXED.items():
        have = theirs.get(key, value)
        if have != value and not (key == "variance_type" and have is None):
            raise UserError(f"{where}: {key} is {have!r}: only {value!r} fits")
    if theirs.get("clip_sample", False):
        raise UserError(
            f"{where}: clip_sample is true, and latents have no bounds: set it to false"
        )
    said = _clip_config.typed(
        {key: value for key, value in theirs.items() if value not in (0, None)},
        _DEFAULTS,
        where,
    )
    clean = True
    if kind in ("DDIMScheduler", "PNDMScheduler"):
        clean = theirs.get("set_alpha_to_one", kind == "DDIMScheduler")
    spacing = "leading" if kind in _LEADING else "linspace"
    return {
        "prediction": _clip_config.translated(
            said["prediction_type"], PREDICTIONS, f"{where}: prediction_type"
        ),
        "schedule": {
            "kind": _clip_config.translated(
                said["beta_schedule"], KINDS, f"{where}: beta_schedule"
            ),
            "steps": said["num_train_timesteps"],
            "start": said["beta_start"],
            "end": said["beta_end"],
            "zero_terminal": said["rescale_betas_zero_snr"],
        },
        "sampling": {
            "sampler": SAMPLERS[kind],
            "steps": min(STEPS, said["num_train_timesteps"] - said["steps_offset"]),
            "guidance": GUIDANCE,
            "spacing": theirs.get("timestep_spacing", spacing),
            "offset": said["steps_offset"],
            "clean": clean,
        },
    }


def config(task: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """What scheduler_config.json says.

    Args:
      task: `config.task`, complete.
      kept: what the file said when it was read.

    Raises:
      UserError: diffusers' pipeline has no such schedule, prediction or last step.
    """
    schedule, sampling = task["schedule"], task["sampling"]

    def theirs(table: Mapping[str, str], value: str, key: str) -> str:
        back = {ours: name for name, ours in table.items()}
        return _clip_config.translated(value, back, key)

    kind = theirs(SAMPLERS, sampling["sampler"], "sampling.sampler")
    own = {
        "_class_name": kind,
        "num_train_timesteps": schedule["steps"],
        "beta_start": schedule["start"],
        "beta_end": schedule["end"],
        "beta_schedule": theirs(KINDS, schedule["kind"], "schedule.kind"),
        "prediction_type": theirs(PREDICTIONS, task["prediction"], "prediction"),
        "timestep_spacing": sampling["spacing"],
        "steps_offset": sampling["offset"],
        "trained_betas": None,
        "clip_sample": False,
    }
    if schedule["zero_terminal"]:
        own["rescale_betas_zero_snr"] = True
    if kind in ("DDIMScheduler", "PNDMScheduler"):
        own["set_alpha_to_one"] = sampling["clean"]
    elif not sampling["clean"]:
        raise UserError(
            f"sampling.clean is False, and {kind} ends in clean data: set it to True, "
            "or use the sampler ddim or plms"
        )
    if kind == "PNDMScheduler":
        own["skip_prk_steps"] = True
    return {**(kept if kept.get("_class_name") == kind else {}), **own}
