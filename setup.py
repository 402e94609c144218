"""Packaging: `pip install -c constraints.txt -e .`; the settings of tools are in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    name="trainyard",
    version="0.6.0",
    description="Numbered large-scale language-model training runs on SLURM: launch, survive, resume, find again.",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["data_tools*", "megatron_patches*", "tools*", "slurm*"]),
    install_requires=[
        # the engine
        "torch>=2.11",
        "deepspeed==0.19.8",
        "megatron-core==0.16.1",
        "numpy",
        "psutil",
        "safetensors",
        # tokenizers and sources of text
        "tokenizers",
        "sentencepiece",
        "gigatoken==0.10.0",  # what it gives is compared with tokenizers; see data_tools/encoding
        "fastokens==0.3.5",
        "orjson",
        "pyarrow",
        "zstandard",
        "isal",
        "datasets",  # hf:NAME
        "jinja2>=3.1.6",  # chat templates of tokenizers; torch brings it too, and older ones' sandbox can be left
        # configs, command lines, pictures
        "pydantic>=2.8",
        "typing_extensions",
        "PyYAML",
        "typer",
        "rich",
        "tensorboard",
        "matplotlib",
    ],
    extras_require={
        "wandb": ["wandb"],
        # training.attention_kernel flash_attn; it is built with the CUDA compiler of the machine and its torch
        "flash": ["flash-attn>=2.7; sys_platform == 'linux'"],
        # copies of runs at s3://, gs:// and hf://; file:// needs none of them
        "storage": ["fsspec", "s3fs", "gcsfs", "huggingface_hub"],
        # tools/export-hf and tools/import-hf: what is written or read is compared with its models
        "transformers": ["transformers"],
        # tools/evals: the harness (which also needs datasets), and the quantiles of comparisons
        "evals": ["lm-eval[hf]==0.4.13", "transformers", "scipy"],
        "dev": [
            "s3fs",
            "gcsfs",
            "huggingface_hub",
            "moto[s3]",
            "flask",
            "flask-cors",  # storage and its servers
            "pytest",
            "pytest-xdist",
            "ruff",
            "mypy",
            "vulture",
            "types-PyYAML",
            "hypothesis",
            "transformers",
            "lm-eval[hf]==0.4.13",
            "scipy",
            "wandb",
        ],
    },
)
