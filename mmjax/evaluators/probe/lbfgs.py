"""L-BFGS on multinomial logistic regression, many L2 weights at once.

The logits are linear in the weights, which a general minimiser cannot use: logits of
the iterate and of the direction are kept, so that a step costs two products with the
features whatever the line search tries, and features are read once for all of them.

Legend: n rows, r coordinates (the last is the intercept's, whose feature is 1),
l L2 weights side by side, c classes.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

MEMORY = 10  # pairs that approximate the inverse Hessian, as in scipy
FLAT = 0.1  # a line search ends where its slope is this share of the first one
TRIALS = 8  # of a line search, at most


class Problem(NamedTuple):
    """features_nr; labels_n; penalty_rl: of each coordinate's squared weight / 2."""

    features_nr: jax.Array
    labels_n: jax.Array
    penalty_rl: jax.Array


class Round(NamedTuple):
    """How far some iterations came.

    weights_rlc; objective_l; gap_l: estimate of the decrease still to come, as a share
    of the objective; iterations_l; done_l: whether the gap is below the tolerance. One
    that is not done and has iterations left had no step down: rounding, or curvature
    that changed; a new round may go on from there.
    """

    weights_rlc: jax.Array
    objective_l: jax.Array
    gap_l: jax.Array
    iterations_l: jax.Array
    done_l: jax.Array


class _State(NamedTuple):
    scaled_rlc: jax.Array  # weights over `scale_rlc`: what L-BFGS moves
    logits_nlc: jax.Array
    gradient_rlc: jax.Array  # with respect to scaled_rlc
    value_l: jax.Array
    memory: optax.ScaleByLBFGSState
    gap_l: jax.Array
    done_l: jax.Array
    iterations_l: jax.Array
    count: jax.Array


@functools.partial(jax.jit, static_argnames=("iterations",))
def minimize(
    problem: Problem,
    weights_rlc: jax.Array,
    tolerance: float,
    *,
    iterations: int,
) -> Round:
    """Up to so many iterations from `weights_rlc`, for every L2 weight by itself.

    L-BFGS works on weights divided by the root of the Hessian's inverse diagonal at
    the start: the same minimum, in coordinates that curve about alike. One
    stops once half its squared Newton decrement, the expected further decrease by the
    quasi-Newton model, is `tolerance` of its objective: a share, so that features may
    have any scale.
    """
    scale_rlc = _scale(problem, weights_rlc)
    shape_l = weights_rlc.shape[1]
    rule = optax.scale_by_lbfgs(MEMORY)
    update = jax.vmap(rule.update, in_axes=(1, 0, 1), out_axes=(1, 0))

    def go_on(state: _State) -> jax.Array:
        return (state.count < iterations) & ~state.done_l.all()

    def step(state: _State) -> _State:
        weights, value_l = scale_rlc * state.scaled_rlc, state.value_l
        move, memory = update(state.gradient_rlc, state.memory, state.scaled_rlc)
        slope_l = -(state.gradient_rlc * move).sum((0, 2))
        gap_l = -0.5 * slope_l / value_l
        # a direction that climbs: nothing but rounding is left of the gradient
        done_l = state.done_l | (slope_l >= 0) | (gap_l <= tolerance)
        direction = -scale_rlc * move
        change_nlc = _logits(problem, direction)
        line = state.logits_nlc, change_nlc, weights, direction
        length_l = _line_search(problem, *line, slope_l, done_l)
        scaled = state.scaled_rlc - length_l[:, None] * move
        logits = state.logits_nlc + length_l[:, None] * change_nlc
        next_l = _value(problem, logits, scale_rlc * scaled)
        # more than rounding, or NaN: the step is not taken
        done_l |= ~(next_l <= value_l * (1 + 1e-5))
        stay_l1 = done_l[:, None]
        scaled = jnp.where(stay_l1, state.scaled_rlc, scaled)
        logits = jnp.where(stay_l1, state.logits_nlc, logits)
        gradient = scale_rlc * _gradient(problem, logits, scale_rlc * scaled)
        return _State(
            scaled,
            logits,
            gradient,
            jnp.where(done_l, value_l, next_l),
            memory,
            jnp.where(state.done_l, state.gap_l, gap_l),
            done_l,
            state.iterations_l + ~done_l,
            state.count + 1,
        )

    scaled, logits = weights_rlc / scale_rlc, _logits(problem, weights_rlc)
    start = _State(
        scaled,
        logits,
        scale_rlc * _gradient(problem, logits, weights_rlc),
        _value(problem, logits, weights_rlc),
        jax.vmap(rule.init, in_axes=1)(scaled),
        jnp.full(shape_l, jnp.inf),
        jnp.zeros(shape_l, bool),
        jnp.zeros(shape_l, jnp.int32),
        jnp.zeros((), jnp.int32),
    )
    end = jax.lax.while_loop(go_on, step, start)
    weights_rlc = scale_rlc * end.scaled_rlc
    logits = _logits(problem, weights_rlc)  # anew, without the steps' sum
    value_l = _value(problem, logits, weights_rlc)
    small_l = jnp.abs(end.gap_l) <= tolerance
    return Round(weights_rlc, value_l, end.gap_l, end.iterations_l, small_l)


def _matmul(rows_nr: jax.Array, columns_rlc: jax.Array) -> jax.Array:
    """(n, r) times (r, l, c) is (n, l, c)."""
    flat = columns_rlc.reshape(len(columns_rlc), -1)
    product = jnp.matmul(rows_nr, flat, precision="highest")
    return product.reshape(-1, *columns_rlc.shape[1:])


def _logits(problem: Problem, weights_rlc: jax.Array) -> jax.Array:
    """Logits less that of the row's own class, (n, l, c).

    So the chance of being wrong keeps its digits where it is small, which is all that
    is left to fit once a weak penalty lets the classes come apart.
    """
    product = _matmul(problem.features_nr, weights_rlc)
    own_nl1 = jnp.take_along_axis(product, problem.labels_n[:, None, None], -1)
    return product - own_nl1


def _value(
    problem: Problem, logits_nlc: jax.Array, weights_rlc: jax.Array
) -> jax.Array:
    """(l,): mean cross-entropy + sum over coordinates of penalty / 2 x weight^2."""
    others_nlc = jnp.where(_own(problem, logits_nlc), -jnp.inf, logits_nlc)
    fit_l = jax.nn.softplus(jax.nn.logsumexp(others_nlc, -1)).mean(0)
    return fit_l + 0.5 * (problem.penalty_rl[..., None] * weights_rlc**2).sum((0, 2))


def _own(problem: Problem, logits_nlc: jax.Array) -> jax.Array:
    """bool (n, 1, c): the class of each row."""
    return problem.labels_n[:, None, None] == jnp.arange(logits_nlc.shape[-1])


def _gradient(
    problem: Problem, logits_nlc: jax.Array, weights_rlc: jax.Array
) -> jax.Array:
    own_n1c = _own(problem, logits_nlc)
    wrong_nlc = jnp.where(own_n1c, 0, jax.nn.softmax(logits_nlc, -1))
    rest_nlc = jnp.where(own_n1c, -wrong_nlc.sum(-1, keepdims=True), wrong_nlc)
    fit_rlc = _matmul(problem.features_nr.T, rest_nlc / len(rest_nlc))
    return fit_rlc + problem.penalty_rl[..., None] * weights_rlc


def _scale(problem: Problem, weights_rlc: jax.Array) -> jax.Array:
    """One over the root of the Hessian's diagonal."""
    chance_nlc = jax.nn.softmax(_logits(problem, weights_rlc), -1)
    spread_nlc = chance_nlc * (1 - chance_nlc) / len(chance_nlc)
    curve_rlc = _matmul(jnp.square(problem.features_nr).T, spread_nlc)
    curve_rlc += problem.penalty_rl[..., None]
    # no smaller than rounding lets it be: the intercept has no penalty
    return jax.lax.rsqrt(curve_rlc + 1e-12)


def _line_search(
    problem: Problem,
    logits_nlc: jax.Array,
    change_nlc: jax.Array,
    weights_rlc: jax.Array,
    direction_rlc: jax.Array,
    slope_l: jax.Array,
    done_l: jax.Array,
) -> jax.Array:
    """(l,): step lengths where the slope is nearly 0; 0 where all is done.

    Newton's method on the slope, kept within a bracket. The objective is convex, so
    that a flat slope is a minimum and gives L-BFGS the curvature it needs; values,
    which float32 cannot tell apart near the end, are not compared.
    """
    penalty_rl1 = problem.penalty_rl[..., None]

    def at(length_l: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Slope and curvature."""
        chance_nlc = jax.nn.softmax(logits_nlc + length_l[:, None] * change_nlc, -1)
        mean_nl = (chance_nlc * change_nlc).sum(-1)
        square_nl = (chance_nlc * change_nlc**2).sum(-1)
        moved_rlc = weights_rlc + length_l[:, None] * direction_rlc
        slope = mean_nl.mean(0)  # of the row's own class the change is 0
        slope += (penalty_rl1 * moved_rlc * direction_rlc).sum((0, 2))
        curve = (square_nl - mean_nl**2).mean(0)
        return slope, curve + (penalty_rl1 * direction_rlc**2).sum((0, 2))

    def go_on(carry: tuple) -> jax.Array:
        trial, *_, flat_l = carry
        return (trial < TRIALS) & ~flat_l.all()

    def narrow(carry: tuple) -> tuple:
        trial, length_l, low_l, high_l, flat_l = carry
        now_l, curve_l = at(length_l)
        flat_l |= jnp.abs(now_l) <= FLAT * jnp.abs(slope_l)
        low_l = jnp.where(now_l < 0, jnp.maximum(low_l, length_l), low_l)
        high_l = jnp.where(now_l > 0, jnp.minimum(high_l, length_l), high_l)
        newton_l = length_l - now_l / curve_l
        inside_l = (newton_l > low_l) & (newton_l < high_l)
        middle_l = jnp.where(jnp.isinf(high_l), 2 * length_l, (low_l + high_l) / 2)
        next_l = jnp.where(inside_l, newton_l, middle_l)
        length_l = jnp.where(flat_l, length_l, next_l)
        return trial + 1, length_l, low_l, high_l, flat_l

    zero_l = jnp.zeros_like(slope_l)
    start = 0, zero_l + 1, zero_l, zero_l + jnp.inf, done_l
    _, length_l, low_l, _, flat_l = jax.lax.while_loop(go_on, narrow, start)
    # the low end of the bracket still goes down: a decrease for sure
    length_l = jnp.where(flat_l | (low_l == 0), length_l, low_l)
    return jnp.where(done_l, 0.0, length_l)
