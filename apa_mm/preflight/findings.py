"""What a check returns."""
import os
from typing import List, NamedTuple

from mmengine.config import Config

#: What launchers call the process's rank, before torch.distributed starts.
_RANK_VARIABLES = dict(
    pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


class Findings(NamedTuple):
    """What a job cannot run with, and what it can; one sentence each."""

    problems: List[str]
    warnings: List[str]


def is_rank_0(cfg: Config) -> bool:
    """Return whether this process is the first one of the job."""
    variable = _RANK_VARIABLES.get(cfg.get('launcher', 'none'))
    return variable is None or os.environ.get(variable, '0') == '0'
