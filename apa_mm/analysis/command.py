"""The command line of ``tools/analyze.py``."""
import argparse
import os.path as osp
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import List

from apa_mm.engine.launch_options import add_cfg_options
from apa_mm.functional.shots import FEW_SHOT, MANY_SHOT

from .errors import AnalysisError
from .html_report import write_report
from .loading import SPLITS, Settings, Source
from .runs import default_name, format_rows, write_view

#: Analyses and what they show.
TOOLS = dict(
    attention='entropy, variance and mean of every gate (Fig. 2 and 5)',
    logits='class logits against logistic and Gumbel (Fig. 1)',
    collapse='neural collapse NC1 of the features (Table 7)',
    calibration='reliability, ECE and MCE by class frequency (Fig. 8)',
    parameters='kappa and lambda over depth and training (Fig. 6)',
    functions='APA, AGLU and their derivatives (Fig. 3 and 4)',
    gradcam='Grad-CAM beside the last gate (Fig. 7)')
#: Tools that show images to the model.
_WITH_DATA = ('attention', 'logits', 'collapse', 'calibration', 'gradcam')
_WITH_CLASSIFIER = ('logits', 'collapse', 'gradcam')
OUT = osp.join('work_dirs', 'analysis')
#: Packages of requirements/analysis.txt that a tool imports.
_PACKAGES = dict(logits=('scipy', ), gradcam=('pytorch_grad_cam', ))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with one sub-command per analysis."""
    parser = argparse.ArgumentParser(
        description='Measure and draw what networks have learned.')
    tools = parser.add_subparsers(dest='tool', required=True)
    for name, text in TOOLS.items():
        _add_tool(tools.add_parser(name, help=text, description=text), name)
    report = tools.add_parser(
        'report', help='one HTML page of what the others wrote')
    report.add_argument('folders', nargs='+', metavar='DIR',
                        help='folders of analyses, or folders of these')
    report.add_argument('--title', default='What the network learned')
    for name, tool in tools.choices.items():
        tool.add_argument(
            '--out', default=osp.join(OUT, name),
            help='folder to write; if it exists, a new one is made beside it '
            '(default: %(default)s)')
    return parser


def _add_tool(parser: argparse.ArgumentParser, name: str) -> None:
    add = parser.add_argument
    add('config', nargs='?' if name == 'functions' else None,
        help='config of the checkpoints')
    add('checkpoints', nargs='*', metavar='CHECKPOINT',
        help='checkpoints to overlay')
    add('--also', nargs='+', action='append', default=[],
        metavar=('CONFIG', 'CHECKPOINT'),
        help='another config and its checkpoints, such as a baseline')
    add('--names', nargs='+', help='names for the legend, one a checkpoint')
    if name in _WITH_DATA:
        add('--split', choices=SPLITS, default='test')
        add('--max-images', type=int, help='evenly spaced images at most')
        add('--many', type=int, default=MANY_SHOT,
            help='classes with more training images are many-shot '
            '(default: %(default)s; LVIS has its own borders)')
        add('--few', type=int, default=FEW_SHOT,
            help='classes with fewer training images are few-shot '
            '(default: %(default)s)')
        add('--device', help='cpu or cuda')
        add_cfg_options(parser)
    if name in _WITH_CLASSIFIER:
        add('--classifier', help='name of the layer that gives the logits')
    if name == 'logits':
        add('--samples', choices=('all', 'own'), default='all',
            help="a class's logits on every image or RoI, or on its own")
    if name == 'calibration':
        add('--num-bins', type=int, default=10)
    if name == 'parameters':
        add('--traces', nargs='+', default=[], metavar='WORK_DIR',
            help='runs with ParameterTraceHook, whose history is drawn')
    if name == 'gradcam':
        add('--num-images', type=int, default=6)
        add('--layer', help='module to look at, such as backbone.layer4')


def run(args: argparse.Namespace) -> List[str]:
    """Do one analysis; return the lines for the terminal."""
    if args.tool == 'report':
        path = write_report(args.folders, args.out, args.title)
        return [f'written: {path} ({path.stat().st_size / 2**10:.0f} KiB)']
    for name in ('max_images', 'num_images', 'num_bins'):
        value = getattr(args, name, None)
        if value is not None and value < 1:
            raise AnalysisError(f'--{name.replace("_", "-")} must be 1 or '
                                f'more, but got {value}')
    for name in ('matplotlib', *_PACKAGES.get(args.tool, ())):
        if find_spec(name) is None:
            raise AnalysisError(
                f'{args.tool} needs the package {name}, which is not '
                'installed; run: pip install -r requirements/analysis.txt')
    given = vars(args)
    settings = Settings(**{
        f.name: given[f.name] for f in fields(Settings) if f.name in given})
    sources = _sources(args)
    analyze = import_module(f'apa_mm.analysis.{args.tool}').analyze
    view = analyze(sources, settings, **{
        name: given[name] for name in signature(analyze).parameters
        if name in given})
    view.settings = dict(
        checkpoints={s.name: s.checkpoint for s in sources},
        split=settings.split if args.tool in _WITH_DATA else None,
        max_images=settings.max_images, **view.settings)
    folder = write_view(args.tool, view, args.out)
    return [view.title, '', format_rows(view.summary), '',
            *(f'note: {note}' for note in view.notes), f'written: {folder}']


def _sources(args: argparse.Namespace) -> List[Source]:
    pairs = [(args.config, path) for path in args.checkpoints]
    for config, *checkpoints in args.also:
        if not checkpoints:
            raise AnalysisError(f'--also {config} names no checkpoint; give '
                                'CONFIG and one or more checkpoints')
        pairs += [(config, path) for path in checkpoints]
    if not pairs and args.tool != 'functions':
        raise AnalysisError(f'{args.tool} needs a checkpoint, but got only the'
                            f' config {args.config}; name one after it')
    for _, path in pairs:
        if not osp.isfile(path):
            raise AnalysisError(f'checkpoint {path} does not exist; name a '
                                '.pth file, or train first')
    if args.names is not None and len(args.names) != len(pairs):
        raise AnalysisError(f'--names has {len(args.names)} names for '
                            f'{len(pairs)} checkpoints; give one for each')
    names = args.names or [default_name(path) for _, path in pairs]
    if len(set(names)) < len(names):
        if args.names is not None:
            raise AnalysisError(f'--names must differ, but are {names}')
        names = [f'{number}: {name}' for number, name in enumerate(names, 1)]
    return [Source(name, *pair) for name, pair in zip(names, pairs,
                                                      strict=True)]
