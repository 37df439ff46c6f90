"""Convert a checkpoint file: read, convert, check, write."""
import os
from typing import Any, Dict, NamedTuple, Optional

from apa_mm.version import __version__

from .configs import config_text
from .contents import check_finite, find_weights
from .convert import Conversion, convert
from apa_mm.weights import CheckpointError
from .expected import compare_with_config
from .notes import class_order
from apa_mm.weights import RawCheckpoint, read_checkpoint
from .report import LoadReport
from .values import Start
from .writing import make_folder_for, write_checkpoint, write_text

__all__ = ['ConversionError', 'Converted', 'convert_file']


class ConversionError(CheckpointError):
    """A conversion that leaves tensors unexplained.

    Attributes:
        report (LoadReport): Which ones.
    """

    def __init__(self, message: str, report: LoadReport) -> None:
        super().__init__(message)
        self.report = report


class Converted(NamedTuple):
    """A file that was converted.

    Attributes:
        path (str): Where it was written.
        report (LoadReport): What became of every tensor.
        config (str, optional): Config lines that use it; None for networks
            other than ResNets.
    """

    path: str
    report: LoadReport
    config: Optional[str]


def convert_file(src: str,
                 dst: str,
                 to: str,
                 *,
                 config: Optional[str] = None,
                 allow_missing: bool = False,
                 start: Start = Start(),
                 averaged: bool = False,
                 hash_suffix: bool = False,
                 config_path: Optional[str] = None) -> Converted:
    """Convert a checkpoint file; nothing is written unless all is well.

    Args:
        src (str): Checkpoint of torch or safetensors.
        dst (str): File to write; ``.safetensors`` decides the format.
        to (str): See :func:`~apa_mm.checkpoint.convert.convert`.
        config (str, optional): Config file; its model must take every tensor
            and lack none.
        allow_missing (bool): Write the file although tensors are missing or
            left over. Shapes must fit all the same.
        start (Start): Values of kappa and lambda where the source has none.
        averaged (bool): Take the moving average of the weights.
        hash_suffix (bool): Add 8 digits of the file's digest to its name.
        config_path (str, optional): Where to write the config lines.

    Returns:
        Converted: Path, report and config lines.

    Raises:
        ConversionError: If tensors are missing, left over or of another
            shape.
        CheckpointError: If the file cannot be read, converted or written.
    """
    if os.path.exists(src) and os.path.exists(dst) and os.path.samefile(
            src, dst):
        raise CheckpointError(f'{dst} is the source itself; write to another '
                              'file')
    raw = read_checkpoint(src)
    try:
        weights = find_weights(raw.content, averaged, raw.metadata)
        broken = check_finite(weights.tensors)
        if broken:
            raise CheckpointError(
                f'{len(broken)} of its tensors hold NaN or infinity, the '
                f'first is {broken[0]}; take an earlier checkpoint')
        result = convert(weights.tensors, to, weights.facts, start)
    except CheckpointError as error:
        raise CheckpointError(f'{src} cannot be converted: {error}') from None
    report = result.report
    report.dropped.update(weights.dropped)
    if config is not None:
        _check_config(config, result)
    elif result.architecture is None:
        raise ConversionError(
            f'{src} cannot be converted: its network is no ResNet, so its '
            'names can only be checked against a config; name it with '
            '--config', report)
    _refuse(src, report, allow_missing)
    lost = {report.mapped.get(name, name) for name in report.unexpected}
    tensors = {k: v for k, v in result.tensors.items() if k not in lost}
    if config_path is not None:
        if result.architecture is None:
            raise CheckpointError('the config of a network that is no ResNet '
                                  'cannot be written; leave out '
                                  '--write-config')
        make_folder_for(config_path)
    path = write_checkpoint(dst, tensors, _meta(raw, result, weights.facts),
                            hash_suffix)
    text = _config(path, to, result)
    if config_path is not None:
        write_text(config_path, text)
    return Converted(path, report, text)


def _check_config(config: str, result: Conversion) -> None:
    """Replace what was worked out from the names by what the model says."""
    report = result.report
    found, shapes = compare_with_config(config, result.tensors,
                                        report.target == 'mmdet-backbone')
    report.missing = [n for n in found.missing if n not in report.mismatched]
    sources = {new: old for old, new in report.mapped.items()}
    lost = [sources.get(name, name) for name in found.unexpected]
    report.unexpected = list(dict.fromkeys(report.unexpected + lost))
    for name in found.reshaped:
        report.mismatched.setdefault(
            name, (tuple(result.tensors[name].shape), shapes[name]))


def _refuse(src: str, report: LoadReport, allow_missing: bool) -> None:
    if report.ok:
        return
    counts = (f'{len(report.missing)} tensors are missing, '
              f'{len(report.unexpected)} unexpected and '
              f'{len(report.mismatched)} of another shape')
    if report.mismatched:
        raise ConversionError(
            f'{src} cannot be converted: {counts}; shapes must fit, so it is '
            'of another architecture than its names say', report)
    if not allow_missing:
        raise ConversionError(
            f'{src} cannot be converted: {counts}; see the lists above, and '
            'give --allow-missing if you can do without them', report)


def _meta(raw: RawCheckpoint, result: Conversion, facts: Any) -> Dict:
    """Return plain values only: the file must load with weights_only."""
    weight = result.tensors.get('head.fc.weight')
    rows = None if weight is None else len(weight)
    meta = dict(
        source=result.source.table.title,
        table=result.source.table.name,
        source_file=os.path.basename(raw.path),
        source_sha256=raw.sha256,
        source_entry=facts.entry,
        target=result.report.target,
        tool='apa_mm.checkpoint',
        tool_version=__version__,
        class_order=class_order(result.source, facts, rows)[0],
        report=result.report.summary(),
        notes=list(result.report.notes))
    if facts.epoch is not None:
        meta['source_epoch'] = facts.epoch
    if facts.classes is not None:
        meta['dataset_meta'] = dict(classes=facts.classes)
    if result.architecture is not None:
        meta['backbone_cfg'] = result.architecture.cfg()
    if result.head is not None:
        meta['head'] = result.head
    return meta


def _config(path: str, to: str, result: Conversion) -> Optional[str]:
    if result.architecture is None:
        return None
    weight = result.tensors.get('head.fc.weight')
    return config_text(to, path, result.architecture, result.head,
                       None if weight is None else len(weight))
