"""Find the data files that a config is about to read."""
import os.path as osp
from functools import partial
from typing import (Any, Callable, Iterator, List, NamedTuple, Optional,
                    Sequence, Tuple)

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS, Registry
from mmengine.utils import is_abs

SPLITS = ('train', 'val', 'test')
#: Readers of mmdet whose way from an entry to an image path is known.
_LAYOUTS = dict(CocoDataset='coco', LVISV05Dataset='lvis_v0.5',
                LVISV1Dataset='lvis_v1')


class DataFile(NamedTuple):
    """One annotation file, who reads it and what that reader needs.

    ``layout`` is that of
    :func:`~apa_mm.data.annotation_checks.check_annotations`, but 'folder' for
    images without an annotation file, and None if not known, so that only
    existence can be checked. A file that is not ``labelled`` may lack
    annotations: no metric needs them, or it is one of several training sets
    and images without objects are kept.
    """

    split: str
    reader: str  # type of the dataset or metric
    path: str  # of the annotation file, or the folder
    layout: Optional[str] = None
    image_folder: Optional[str] = None  # that image names start from
    classes: Optional[Sequence[str]] = None  # None if not known
    lvis_metric: bool = False  # an LVIS metric reads it
    masks: bool = False  # instance masks are read from it
    labelled: bool = True
    sort_categories: bool = False  # labels go by category id, not file order
    min_size: float = 0  # smaller images are left out
    build: Optional[Callable] = None  # of a data set that caches


def find_data_files(cfg: Config,
                    splits: Sequence[str] = SPLITS) -> List[DataFile]:
    """List the local annotation files of a config's datasets and metrics.

    In the order of ``splits``, datasets before metrics. Wrapped datasets are
    looked into; remote files (``s3://`` and so on) are left out.
    """
    files = []
    for split in splits:
        dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
        metrics = _metrics(cfg, split)
        leaves = list(_leaves(dataset))
        own = [_dataset_file(split, leaf, cfg.get('default_scope'), metrics,
                             len(leaves) > 1) for leaf in leaves]
        own = [item for item in own if item is not None]
        read = {osp.normpath(item.path) for item in own}
        files += own
        files += [_metric_file(split, metric, own) for metric in metrics
                  if _is_local(metric.get('ann_file'), metric)
                  and osp.normpath(metric['ann_file']) not in read]
    return files


def _leaves(dataset: Any) -> Iterator[dict]:
    """Yield the datasets inside all wrappers."""
    if isinstance(dataset, (list, tuple)):
        for item in dataset:
            yield from _leaves(item)
    elif isinstance(dataset, dict):
        inner = [dataset[k] for k in ('dataset', 'datasets') if k in dataset]
        yield from _leaves(inner) if inner else [dataset]


def _metrics(cfg: Config, split: str) -> List[dict]:
    evaluator = cfg.get(f'{split}_evaluator') or []
    if isinstance(evaluator, dict):
        evaluator = evaluator.get('metrics', evaluator)
    if isinstance(evaluator, dict):
        evaluator = [evaluator]
    return [metric for metric in evaluator if isinstance(metric, dict)]


def _is_local(path: Any, owner: dict) -> bool:
    backend = owner.get('backend_args') or {}
    return (isinstance(path, str) and path != '' and '://' not in path
            and backend.get('backend', 'local') == 'local')


def _join(root: str, path: str) -> str:
    """Join as mmengine's BaseDataset does."""
    return path if is_abs(path) else osp.join(root, path)


def _dataset_file(split: str, dataset: dict, scope: Optional[str],
                  metrics: List[dict], is_member: bool) -> Optional[DataFile]:
    root = dataset.get('data_root') or ''
    kind = configured_class(DATASETS, dataset.get('type'), scope)
    names = [base.__name__ for base in getattr(kind, '__mro__', ())]
    if ('CustomDataset' in names and not dataset.get('ann_file')
            and _is_local(root, dataset)):
        return DataFile(split, _type_name(dataset), root, layout='folder')
    if not _is_local(dataset.get('ann_file'), dataset) or '://' in root:
        return None
    path = _join(root, dataset['ann_file'])
    # With several validation sets, each metric has the file of its own.
    metrics = [metric for metric in metrics if not metric.get('ann_file')
               or osp.normpath(metric['ann_file']) == osp.normpath(path)]
    layout = _layout(kind)
    folder = None
    if layout:
        prefix = dataset.get('data_prefix') or {}
        folder = _join(root, prefix.get('img', prefix.get('img_path', '')))
    filters = {} if dataset.get('test_mode') else dataset.get(
        'filter_cfg') or {}
    if is_member and split == 'train':
        labelled = bool(filters.get('filter_empty_gt'))
    else:
        labelled = not metrics or not all(
            metric.get('format_only') for metric in metrics)
    return DataFile(
        split, _type_name(dataset), path, layout, folder,
        classes=_classes(dataset, kind),
        lvis_metric=any('LVIS' in _type_name(m) for m in metrics),
        masks=_reads_masks(dataset, metrics), labelled=labelled,
        sort_categories=any(m.get('sort_categories') for m in metrics),
        min_size=filters.get('min_size', 0),
        build=partial(_build, dataset, scope)
        if hasattr(kind, 'prepare') else None)


def _build(dataset: dict, scope: Optional[str]) -> Any:
    with DATASETS.switch_scope_and_registry(scope) as own:
        return own.build(dict(dataset, lazy_init=True, pipeline=[]))


def _metric_file(split: str, metric: dict,
                 datasets: List[DataFile]) -> DataFile:
    """Describe a metric's own annotation file after its dataset's."""
    like = datasets[0] if len(datasets) == 1 else DataFile('', '', '')
    name = _type_name(metric)
    return DataFile(
        split, name, metric['ann_file'], like.layout, classes=like.classes,
        lvis_metric='LVIS' in name, masks=like.masks,
        labelled=not metric.get('format_only'),
        sort_categories=bool(metric.get('sort_categories')))


def _type_name(item: dict) -> str:
    kind = item.get('type')
    return kind if isinstance(kind, str) else getattr(kind, '__name__', '?')


def configured_class(registry: Registry, kind: Any,
                     scope: Optional[str]) -> Optional[type]:
    """Return the class of a config ``type``; None if there is no such type."""
    if not isinstance(kind, str):
        return kind if isinstance(kind, type) else None
    try:
        with registry.switch_scope_and_registry(scope) as own:
            return own.get(kind)
    except (ImportError, RuntimeError):
        return None


def _layout(kind: Optional[type]) -> Optional[str]:
    """Return the layout if the class reads files as a known one does."""
    readers = [base for base in getattr(kind, '__mro__', ())
               if not vars(base).get('reads_as_parent')]
    owners = [next((base.__name__ for base in readers if name in vars(base)),
                   None) for name in ('load_data_list', 'parse_data_info')]
    known = {_LAYOUTS.get(owner) for owner in owners}
    if len(known) > 1:
        known.discard('coco')
    return known.pop() if len(known) == 1 else None


def _classes(dataset: dict, kind: Optional[type]) -> Optional[Tuple[str]]:
    classes = (dataset.get('metainfo') or {}).get('classes')
    if classes is None:
        classes = getattr(kind, 'METAINFO', {}).get('classes')
    if isinstance(classes, str) and osp.isfile(classes):
        classes = list_from_file(classes)  # as mmengine's BaseDataset does
    return tuple(classes) if isinstance(classes, (list, tuple)) else None


def _reads_masks(dataset: dict, metrics: List[dict]) -> bool:
    steps = dataset.get('pipeline') or []
    loads = any(isinstance(step, dict) and step.get('with_mask')
                for step in steps)
    # A metric's `metric` is a name or a list of names.
    return loads or any('segm' in (metric.get('metric') or ())
                        for metric in metrics)
