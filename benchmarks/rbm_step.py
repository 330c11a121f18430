"""Updates a second of an RBM by persistent contrastive divergence: mmjax, scikit-learn.

    python benchmarks/rbm_step.py --cores 1

784 visible and 500 hidden units at a batch of 100, one Gibbs sweep of 100 chains an
update. mmjax's update is the compiled training step of `configs/boltzmann.py:mnist`
whole: the optimizer, running means and metrics are in it. scikit-learn's are those of
`BernoulliRBM.fit`, on float64 (what numpy makes of pixels / 255) and on float32. All
read the same bits. The sides live in processes of their own and take turns. Needs
scikit-learn (extra `bench`), here or for `--peer-python`.
"""

import argparse
import pathlib
import sys

import numpy as np
import sides
import turns

RESULT = sides.RESULTS / "rbm_step.json"
SIDES = ("mmjax", "sklearn", "sklearn_float32")
SGD = {"name": "sgd", "momentum": 0.0, "lr": 0.05}


def make_data(args: argparse.Namespace) -> np.ndarray:
    """Bits (b, 784), a fifth of them 1, as those of MNIST."""
    rng = np.random.default_rng(0)
    return (rng.random((args.batch, args.visible)) < 0.2).astype(np.float32)


def ours(args: argparse.Namespace, bits_bd: np.ndarray):
    """(as many updates as a round has, facts)."""
    sides.start_mmjax()
    from mmjax.tasks import boltzmann

    pathway = {"units": args.visible, "widths": (args.hidden,)}
    task = boltzmann.Task(pathways={"bits": pathway}, chains=args.batch)
    step, facts = sides.mmjax_step(task, {"bits": bits_bd}, SGD)
    return lambda: [step() for _ in range(args.updates)], facts


def theirs(args: argparse.Namespace, bits_bd: np.ndarray, dtype: type):
    """(as many updates as a round has, facts)."""
    import sklearn
    from sklearn.neural_network import BernoulliRBM

    model = BernoulliRBM(
        args.hidden,
        learning_rate=0.05,
        batch_size=args.batch,
        n_iter=1,
        random_state=0,
    )
    rows_nd = np.tile(bits_bd, (args.updates, 1)).astype(dtype)
    return lambda: model.fit(rows_nd), {"sklearn": sklearn.__version__}


def worker(side: str, args: argparse.Namespace) -> None:
    """The child of one side."""
    turns.pin(args.cores)
    data = make_data(args)
    if side == "mmjax":
        updates, facts = ours(args, data)
    else:
        dtype = np.float64 if side == "sklearn" else np.float32
        updates, facts = theirs(args, data, dtype)
    updates()

    def once() -> turns.Numbers:
        return {k: v / args.updates for k, v in turns.timed(updates).items()}

    turns.serve(facts, once)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--visible", type=int, default=784)
    parser.add_argument("--hidden", type=int, default=500)
    parser.add_argument("--updates", type=int, default=100, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cores", type=int, default=0, help="0 is all there are")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--out", type=pathlib.Path, default=RESULT)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args)
        return
    commands = turns.commands(__file__, SIDES, args.peer_python)
    facts, rounds = turns.take(commands, args.rounds)
    result: dict = {"facts": facts}
    for side, found in rounds.items():
        took = {key: turns.median(found, key) for key in ("s", "cpu_s")}
        line = (
            f"{side}: {1 / took['s']:.0f} updates/s ({1 / took['cpu_s']:.0f} a CPU s)"
        )
        if side != "mmjax":
            took["ratio"] = turns.ratio(found, rounds["mmjax"], "s")
            took["ratio_cpu"] = turns.ratio(found, rounds["mmjax"], "cpu_s")
            line += f"; {took['ratio']:.2f} times mmjax's time "
            line += f"(CPU time {took['ratio_cpu']:.2f})"
        print(line)
        result[side] = took | {"rounds": found}
    sizes = ("batch", "visible", "hidden", "updates", "cores")
    about = {key: getattr(args, key) for key in sizes}
    turns.save(args.out, about | {"machine": turns.machine()} | result)


if __name__ == "__main__":
    main()
