"""Convert a checkpoint file: read, convert, check, write."""
import os
from typing import NamedTuple, Optional

from apa_mm.version import __version__
from apa_mm.weights import CheckpointError, RawCheckpoint, read_checkpoint
from apa_mm.weights.errors import require

from .back import convert_to_authors
from .configs import config_text
from .contents import Facts, check_finite, find_weights, plain_values
from .convert import Conversion, convert
from .expected import compare_with_config
from .notes import class_order, num_rows
from .report import LoadReport
from .values import Start
from .writing import check_place, write_bytes, write_checkpoint


class ConversionError(CheckpointError):
    """A conversion that leaves the tensors in its report unexplained."""

    def __init__(self, message: str, report: LoadReport) -> None:
        super().__init__(message)
        self.report = report


class Converted(NamedTuple):
    """Where a file was written, and config lines if it is a ResNet's."""

    path: str
    report: LoadReport
    config: Optional[str]


def convert_file(src: str, dst: str, to: str, *,
                 config: Optional[str] = None, allow_missing: bool = False,
                 start: Start = Start(), averaged: bool = False,
                 hash_suffix: bool = False, config_path: Optional[str] = None
                 ) -> Converted:
    """Convert a checkpoint file; nothing is written unless all is well.

    Args:
        src (str): Checkpoint of torch or safetensors.
        dst (str): File to write; ``.safetensors`` decides the format.
        to (str): See :func:`~apa_mm.checkpoint.convert.convert`; 'authors'
            gives our network the authors' names again.
        config (str, optional): Config file; its model must take every tensor
            and lack none.
        allow_missing (bool): Write the file although tensors are missing or
            left over. Shapes must fit all the same.
        start (Start): Values of kappa and lambda where the source has none.
        averaged (bool): Take the moving average of the weights.
        hash_suffix (bool): See :func:`write_checkpoint`.
        config_path (str, optional): Where to write the config lines.

    Raises:
        ConversionError: If tensors are missing, left over or of another
            shape.
        CheckpointError: If the file cannot be read, converted or written.
    """
    _check_places(src, dst, config, config_path)
    raw = read_checkpoint(src)
    try:
        weights = find_weights(raw.content, averaged, raw.metadata)
        broken = check_finite(weights.tensors)
        require(not broken,
                f'{len(broken)} of its tensors hold NaN or infinity, the '
                f'first is {"".join(broken[:1])}; take an earlier checkpoint')
        if to == 'authors':
            result = convert_to_authors(weights.tensors, weights.facts)
        else:
            result = convert(weights.tensors, to, weights.facts, start)
        broken = check_finite(result.tensors)
        require(not broken, f'{"".join(broken[:1])} would hold NaN or '
                'infinity; mend the options')
    except CheckpointError as error:
        raise CheckpointError(f'{src} cannot be converted: {error}') from None
    report = result.report
    report.dropped.update(weights.dropped)
    if config is not None:
        _check_config(config, result)
    elif result.architecture is None and to != 'authors':
        raise ConversionError(
            f'{src} cannot be converted: its network is no ResNet and can '
            'only be checked against a config; name it by --config', report)
    if not report.ok and (report.mismatched or not allow_missing):
        reason = (
            'shapes must fit, so it is of another architecture than its names '
            'say' if report.mismatched else 'see the lists above, and give '
            '--allow-missing if you can do without them')
        raise ConversionError(
            f'{src} cannot be converted: {len(report.missing)} tensors are '
            f'missing, {len(report.unexpected)} unexpected and '
            f'{len(report.mismatched)} of another shape; {reason}', report)
    lost = {report.mapped.get(name, name) for name in report.unexpected}
    tensors = {k: v for k, v in result.tensors.items() if k not in lost}
    require(config_path is None or result.architecture is not None,
            'only a ResNet for mmdet or mmpretrain has config lines; leave '
            'out --write-config')
    path = write_checkpoint(dst, tensors, _meta(raw, result, weights.facts),
                            hash_suffix,
                            'model' if to == 'authors' else 'state_dict')
    if result.architecture is None:
        return Converted(path, report, None)
    text = config_text(to, path, result.architecture, result.head,
                       num_rows(result.tensors),
                       sum(n.endswith('.fc_cls.g') for n in result.tensors))
    if config_path is not None:
        write_bytes(config_path, text.encode())
    return Converted(path, report, text)


def _check_places(src: str, dst: str, config: Optional[str],
                  config_path: Optional[str]) -> None:
    """Check all that will be written before the first of it is."""
    outputs = [path for path in (dst, config_path) if path is not None]
    taken = {os.path.realpath(config or src): 'named twice',
             os.path.realpath(src): 'the source itself'}
    for path in outputs:
        real = os.path.realpath(path)
        require(real not in taken, f'{path} is {taken.get(real)}; write to '
                'another file')
        taken[real] = 'named twice'
    for path in outputs:
        check_place(path)


def _check_config(config: str, result: Conversion) -> None:
    """Replace what was worked out from the names by what the model says."""
    report = result.report
    found, shapes = compare_with_config(config, result.tensors,
                                        report.target == 'mmdet-backbone')
    report.missing = [n for n in found.missing if n not in report.mismatched]
    lost = [*map(report.origins.get, found.unexpected, found.unexpected)]
    report.unexpected = list(dict.fromkeys(report.unexpected + lost))
    for name in found.reshaped:
        report.mismatched.setdefault(
            name, (tuple(result.tensors[name].shape), shapes[name]))


def _meta(raw: RawCheckpoint, result: Conversion, facts: Facts) -> dict:
    """Return plain values only: the file must load with weights_only."""
    table, report = result.source.table, result.report
    order, _ = class_order(result.source, facts, num_rows(result.tensors))
    meta = dict(
        source=table.title, table=table.name,
        source_file=os.path.basename(raw.path), source_sha256=raw.sha256,
        source_entry=facts.entry, target=report.target,
        tool='apa_mm.checkpoint', tool_version=__version__,
        class_order=order, report=report.summary(), notes=list(report.notes))
    saved, cfg = facts.meta.get('dataset_meta'), facts.meta.get('cfg')
    if isinstance(saved, dict):
        saved = plain_values(saved)
    else:
        saved = None if facts.classes is None else dict(classes=facts.classes)
    known = dict(
        source_epoch=facts.epoch, dataset_meta=saved,
        cfg=cfg if isinstance(cfg, str) else None,
        backbone_cfg=result.architecture and result.architecture.cfg(),
        head=result.head)
    return meta | {k: v for k, v in known.items() if v is not None}
