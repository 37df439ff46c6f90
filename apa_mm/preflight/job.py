"""Checks before a job starts, so that bad input leaves nothing behind."""
import logging
from typing import Sequence

from mmengine.config import Config
from mmengine.logging import print_log

from apa_mm.data.dataset_files import SPLITS
from apa_mm.preflight.config_keys import check_keys
from apa_mm.preflight.data_checks import DataReport, check_data, inspect_data
from apa_mm.preflight.findings import is_rank_0
from apa_mm.preflight.loss_checks import check_losses
from apa_mm.utils.checks import InputError
from apa_mm.weights import read_checkpoint
from apa_mm.weights.load_check import state_dict_of

#: Functions of a config and of the splits that will run.
CHECKS = (check_keys, check_losses, check_data)


def check_config(cfg: Config, splits: Sequence[str] = SPLITS) -> None:
    """Run every check and log the warnings.

    ``splits`` are those of 'train', 'val' and 'test' that will run.

    Raises:
        InputError: If anything is wrong; it lists every problem.
    """
    found = [check(cfg, splits) for check in CHECKS]
    if is_rank_0(cfg):
        for warning in (text for item in found for text in item.warnings):
            print_log(warning, logger='current', level=logging.WARNING)
    problems = [text for item in found for text in item.problems]
    if problems:
        raise InputError('\n'.join(problems))


def report_datasets(cfg: Config) -> DataReport:
    """Run the same checks for all splits, and count what the files hold."""
    data = inspect_data(cfg)
    found = [*(check(cfg, SPLITS) for check in CHECKS
               if check is not check_data), data]
    return data._replace(
        problems=[text for item in found for text in item.problems],
        warnings=[text for item in found for text in item.warnings])


def check_checkpoint(cfg: Config) -> None:
    """Check that the file to load from is there and readable; no URLs.

    Raises:
        InputError: If the file does not exist, or holds objects that
            no weights are made of.
    """
    path = cfg.get('load_from')
    if path is None or '://' in path or not is_rank_0(cfg):
        return
    state_dict_of(read_checkpoint(path, map_location='meta').content)
