"""BasicSR's training script, with critics: the same options, any of its configs.

    python recipes/basicsr/train.py -opt recipes/basicsr/train_msrresnet_x4_critics.yml
    torchrun --nproc_per_node 4 recipes/basicsr/train.py -opt <config>.yml --launcher pytorch

`experiments/` and `tb_logger/` are written below the working directory.
"""

from __future__ import annotations

from pathlib import Path

from perceptloss.integrations.basicsr import shim as basicsr_shim

# Not in main: the loader's worker processes import this script, and nothing more, before they unpickle a dataset.
basicsr_shim.install()


def main() -> None:
    """Train as the command line says."""
    from basicsr.train import train_pipeline

    import perceptloss.integrations.basicsr  # noqa: F401  registers the critics

    train_pipeline(str(Path.cwd()))


if __name__ == "__main__":
    main()
