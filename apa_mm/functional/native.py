"""The compiled CPU forms of the activations: building, caching, calling them.

The files in ``csrc`` are compiled at first use with the system's C++ compiler
(6 s on one core) into ``${XDG_CACHE_HOME:-~/.cache}/apa_mm/native``, under
a name made of the source, the compiler and the processor's features, and is
loaded from there afterwards. Without a compiler the eager form is used.
"""
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import List, Optional, Tuple

import torch
from torch import Tensor

from .layout import DTYPES, Layout, find_layout

__all__ = [
    'Layout', 'backward', 'backward_parts', 'find_layout', 'forward',
    'library', 'pointer', 'threads'
]

SOURCES = Path(__file__).parent / 'csrc'
FLAGS = ('-O3', '-std=c++17', '-fPIC', '-shared', '-fopenmp',
         '-fno-math-errno', '-fno-trapping-math', '-ffp-contract=fast')
#: Tried in order; the second for compilers that do not know the first.
TUNING = (('-march=native', '-mprefer-vector-width=512'),
          ('-march=native', ), ())
#: Fewer elements than this are not worth waking a second thread for.
ELEMENTS_PER_THREAD = 16384


def forward(x: Tensor,
            kappa: Tensor,
            lambd: Tensor,
            layout: Layout,
            kind: int,
            affine: Optional[Tuple[Tensor, Tensor]] = None) -> Tensor:
    """Return the activation of ``z = scale * x + shift``.

    Args:
        x (Tensor): Input that ``layout`` was found for.
        kappa (Tensor): One float32 value, or one per channel, contiguous.
        lambd (Tensor): The same number of values, positive; the Gumbel gate
            does not use it.
        layout (Layout): From :func:`find_layout`.
        kind (int): GATE, UNIT or GUMBEL of ``formulas.py``.
        affine (tuple[Tensor, Tensor], optional): Scale and shift per channel,
            float32 and contiguous; None for 1 and 0.

    Returns:
        Tensor: Shape, dtype and strides of ``x``.
    """
    y = torch.empty_like(x)
    library().apa_forward(
        pointer(x), pointer(y), *_problem(x, kappa, lambd, layout, affine),
        int(kind), int(layout.channels_last), threads(x))
    return y


def backward(x: Tensor, grad: Tensor, kappa: Tensor, lambd: Tensor,
             layout: Layout, kind: int,
             paper: bool) -> Tuple[Tensor, Tensor]:
    """Return the gradient of x and (channels, 4) of the parameters.

    Arguments and columns are those of :func:`backward_parts`.
    """
    grad_x, sums = backward_parts(x, grad, kappa, lambd, layout, kind, paper)
    return grad_x, sums.reshape(-1, layout.channels, 4).sum(0)


def backward_parts(
    x: Tensor,
    grad: Tensor,
    kappa: Tensor,
    lambd: Tensor,
    layout: Layout,
    kind: int,
    paper: bool,
    affine: Optional[Tuple[Tensor, Tensor]] = None,
    center: Optional[Tensor] = None
) -> Tuple[Tensor, Tensor]:
    """Return the gradient for z and the sums that the parameters need.

    Args:
        x (Tensor): As in :func:`forward`.
        grad (Tensor): Gradient of the result, dtype and shape of ``x``.
        kappa (Tensor): As in :func:`forward`.
        lambd (Tensor): As in :func:`forward`.
        layout (Layout): As in :func:`forward`.
        kind (int): As in :func:`forward`.
        paper (bool): Eq. 8 of the paper for lambda.
        affine (tuple[Tensor, Tensor], optional): As in :func:`forward`.
        center (Tensor, optional): One float32 value per channel.

    Returns:
        tuple[Tensor, Tensor]: Gradient for z, strides of ``x``; and a float64
        tensor (rows, 4), or (channels, 4) with ``channels_last``, with the
        sums of the gradients for kappa and lambda, of ``grad_z`` and of
        ``grad_z * (x - center)``.
    """
    if grad.stride() != x.stride() or grad.dtype != x.dtype:
        grad = torch.empty_like(x).copy_(grad)
    grad_z = torch.empty_like(x)
    count = layout.channels if layout.channels_last else layout.rows
    sums = torch.empty(count, 4, dtype=torch.float64)
    library().apa_backward(
        pointer(x), pointer(grad), pointer(grad_z), pointer(sums),
        *_problem(x, kappa, lambd, layout, affine), pointer(center),
        int(kind), int(paper), int(layout.channels_last), threads(x))
    return grad_z, sums


def pointer(tensor: Optional[Tensor]) -> ctypes.c_void_p:
    """Return the address of a tensor's data, and hold on to it; or null."""
    address = ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
    address.tensor = tensor
    return address


def _problem(x: Tensor, kappa: Tensor, lambd: Tensor, layout: Layout,
             affine: Optional[Tuple[Tensor, Tensor]]) -> tuple:
    size = ctypes.c_int64
    scale, shift = affine or (None, None)
    stride = int(kappa.numel() > 1)
    return (DTYPES[x.dtype], size(layout.rows), size(layout.inner),
            size(layout.channels), pointer(kappa), pointer(lambd),
            size(stride), pointer(scale), pointer(shift))


def threads(x: Tensor) -> int:
    """Return how many of torch's threads are worth waking for ``x``."""
    wanted = -(-x.numel() // ELEMENTS_PER_THREAD)
    return max(1, min(torch.get_num_threads(), wanted))


@functools.lru_cache(maxsize=None)
def library() -> Optional[ctypes.CDLL]:
    """Return the compiled library, building it if need be.

    Returns:
        CDLL | None: None if it cannot be built; said once, at level INFO.
    """
    compiler = shutil.which(os.environ.get('CXX', 'c++')) or shutil.which(
        'g++')
    logger = logging.getLogger(__name__)
    if compiler is None:
        logger.info('no C++ compiler: APA and AGLU run in their eager form')
        return None
    try:
        return ctypes.CDLL(str(_build(compiler)))
    except (OSError, subprocess.CalledProcessError) as error:
        detail = getattr(error, 'stderr', None) or error
        logger.info('APA and AGLU run in their eager form, the compiled one '
                    'could not be built: %s', detail)
        return None


def _build(compiler: str) -> Path:
    """Compile into the cache unless it is there; return the file."""
    root = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
    folder = root / 'apa_mm' / 'native'
    target = folder / f'apa_cpu-{_fingerprint(compiler)}.so'
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written to
        folder = Path(tempfile.mkdtemp(prefix='apa_mm-'))
        target = folder / target.name
    handle, temporary = tempfile.mkstemp(suffix='.so', dir=folder)
    os.close(handle)
    try:
        _compile(compiler, temporary)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return target


def _compile(compiler: str, output: str) -> None:
    for tuning in TUNING:
        command: List[str] = [
            compiler, *FLAGS, *tuning,
            *map(str, sorted(SOURCES.glob('*.cpp'))), '-o', output
        ]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
            return
        except subprocess.CalledProcessError:
            if not tuning:
                raise


def _fingerprint(compiler: str) -> str:
    """Return a name for everything that the binary depends on."""
    version = subprocess.run([compiler, '--version'],
                             check=True,
                             capture_output=True,
                             text=True).stdout
    features = platform.processor()
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        features = ''.join(
            sorted({
                line
                for line in cpuinfo.read_text().splitlines()
                if line.startswith(('flags', 'Features', 'model name'))
            }))
    sources = [p.read_text() for p in sorted(SOURCES.iterdir()) if p.is_file()]
    parts = (*sources, version, features, platform.machine(),
             repr((FLAGS, TUNING)))
    return hashlib.sha256('\0'.join(parts).encode()).hexdigest()[:16]
