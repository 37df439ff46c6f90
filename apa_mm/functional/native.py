"""The compiled CPU form of APA and AGLU: building, caching and calling it.

The files in ``csrc`` are compiled at first use with the system's C++ compiler
(3 s on one core) into ``${XDG_CACHE_HOME:-~/.cache}/apa_mm/native``, under
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
from typing import List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

__all__ = [
    'Layout', 'backward', 'find_layout', 'forward', 'library', 'pointer',
    'threads'
]

SOURCES = Path(__file__).parent / 'csrc'
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
FLAGS = ('-O3', '-std=c++17', '-fPIC', '-shared', '-fopenmp',
         '-fno-math-errno', '-fno-trapping-math', '-ffp-contract=fast')
#: Tried in order; the second for compilers that do not know the first.
TUNING = (('-march=native', '-mprefer-vector-width=512'),
          ('-march=native', ), ())
#: Fewer elements than this are not worth waking a second thread for.
ELEMENTS_PER_THREAD = 16384


class Layout(NamedTuple):
    """How a tensor is walked: see the header of ``apa_cpu.cpp``.

    Attributes:
        rows (int): Rows of ``inner`` elements, or of ``channels`` elements.
        inner (int): Elements per row that share their parameters.
        channels (int): Number of different parameters.
        channels_last (bool): Whether the parameters differ within a row.
    """

    rows: int
    inner: int
    channels: int
    channels_last: bool


def find_layout(x: Tensor, channel_dim: Optional[int]) -> Optional[Layout]:
    """Return how to walk ``x`` without a copy, or None if that is impossible.

    Args:
        x (Tensor): Any shape and strides.
        channel_dim (int, optional): Non-negative axis along which the
            parameters differ; None if they are shared.

    Returns:
        Layout | None: None asks for the eager form.
    """
    if x.dtype not in DTYPES or x.device.type != 'cpu' or not x.numel():
        return None
    if channel_dim is None:
        dense = x.is_contiguous() or _is_dense(x)
        return Layout(1, x.numel(), 1, False) if dense else None
    channels = x.shape[channel_dim]
    inner = x.shape[channel_dim + 1:].numel()
    rows = x.numel() // inner
    if x.is_contiguous():
        if inner == 1:
            return Layout(rows // channels, 1, channels, True)
        return Layout(rows, inner, channels, False)
    last = x.dim() == 4 and channel_dim == 1 and x.is_contiguous(
        memory_format=torch.channels_last)
    return Layout(x.numel() // channels, 1, channels, True) if last else None


def _is_dense(x: Tensor) -> bool:
    """Return whether the strides are a permutation without gaps."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def forward(x: Tensor,
            kappa: Tensor,
            lambd: Tensor,
            layout: Layout,
            product: bool,
            affine: Optional[Tuple[Tensor, Tensor]] = None) -> Tensor:
    """Return eta(z) or z * eta(z), with ``z = scale * x + shift``.

    Args:
        x (Tensor): Input that ``layout`` was found for.
        kappa (Tensor): One float32 value, or one per channel, contiguous.
        lambd (Tensor): The same number of values, positive.
        layout (Layout): From :func:`find_layout`.
        product (bool): Multiply by z.
        affine (tuple[Tensor, Tensor], optional): Scale and shift per channel,
            float32 and contiguous; None for 1 and 0.

    Returns:
        Tensor: Shape, dtype and strides of ``x``.
    """
    y = torch.empty_like(x)
    library().apa_forward(
        pointer(x), pointer(y), *_problem(x, kappa, lambd, layout, affine),
        int(product), int(layout.channels_last), threads(x))
    return y


def backward(
    x: Tensor,
    grad: Tensor,
    kappa: Tensor,
    lambd: Tensor,
    layout: Layout,
    product: bool,
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
        product (bool): As in :func:`forward`.
        paper (bool): Eq. 8 of the paper for lambda.
        affine (tuple[Tensor, Tensor], optional): As in :func:`forward`.
        center (Tensor, optional): One float32 value per channel.

    Returns:
        tuple[Tensor, Tensor]: Gradient for z, strides of ``x``; and a float64
        tensor (channels, 4) with the sums of the gradients for kappa and
        lambda, of ``grad_z`` and of ``grad_z * (x - center)``.
    """
    if grad.stride() != x.stride() or grad.dtype != x.dtype:
        grad = torch.empty_like(x).copy_(grad)
    grad_z = torch.empty_like(x)
    count = layout.channels if layout.channels_last else layout.rows
    sums = torch.empty(count, 4, dtype=torch.float64)
    library().apa_backward(
        pointer(x), pointer(grad), pointer(grad_z), pointer(sums),
        *_problem(x, kappa, lambd, layout, affine), pointer(center),
        int(product), int(paper), int(layout.channels_last), threads(x))
    return grad_z, sums.reshape(-1, layout.channels, 4).sum(0)


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
