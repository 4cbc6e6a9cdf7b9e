"""BasicSR's training script, with critics: the same options, any of its configs.

    python recipes/basicsr/train.py -opt recipes/basicsr/train_msrresnet_x4_critics.yml
    torchrun --nproc_per_node 4 recipes/basicsr/train.py -opt <config>.yml --launcher pytorch

`experiments/` and `tb_logger/` are written below the working directory.
"""

from pathlib import Path

# not below: the loader's worker processes import this script, and nothing more, before they unpickle a dataset
from perceptloss.integrations.basicsr import train_pipeline

if __name__ == "__main__":
    train_pipeline(str(Path.cwd()))
