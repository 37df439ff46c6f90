"""The Triton kernels: results in the interpreter, compilation, choice."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from apa_mm.kernels import activation
from apa_mm.kernels.native import Layout

triton = pytest.importorskip(
    'triton', reason='no Triton: the GPU kernels are not checked')
HERE = Path(__file__).parent


@pytest.fixture(scope='module')
def report():
    """Run every check once: the interpreter needs a process of its own."""
    path = os.pathsep.join((str(HERE.parent), str(HERE.parents[1])))
    return subprocess.run(
        [sys.executable, str(HERE.parent / 'support' / 'triton_checks.py')],
        capture_output=True,
        text=True,
        env=dict(
            os.environ,
            PYTHONPATH=path,
            TRITON_INTERPRET='1',
            OMP_NUM_THREADS='1'))


@pytest.mark.parametrize('check', [
    'shapes', 'channels_last', 'half_types', 'small_lambda', 'extremes',
    'repeats', 'choice'
])
def test_kernels_in_the_interpreter(report, check):
    assert f'{check} passed' in report.stdout.splitlines(), report.stderr


@pytest.mark.slow
def test_every_tracer_sees_past_the_kernels():
    """The matrix of modules and tracers, where eager mode is Triton's."""
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider',
         str(HERE / 'test_matrix.py'), '-k',
         'test_values and cpu and AGLU and not (per or below or printed)'
         ],
        capture_output=True, text=True,
        env=dict(os.environ, TRITON_INTERPRET='1', APA_MM_BACKEND='triton'))
    assert not result.returncode, result.stdout[-3000:]
    assert '19 passed' in result.stdout


@pytest.mark.parametrize('dtype', ['fp32', 'bf16'])
@pytest.mark.parametrize('way', ['FLAT', 'ROWS', 'COLUMNS'])
def test_kernels_compile_for_a_gpu_that_is_not_there(dtype, way, tmp_path,
                                                     monkeypatch):
    from triton.backends import backends
    if 'nvidia' not in backends:
        pytest.skip('this Triton has no compiler for NVIDIA cards')
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    from apa_mm.kernels import apa_triton
    layout = {
        'FLAT': Layout(1, 4096, 1, False),
        'ROWS': Layout(64, 3136, 32, False),
        'COLUMNS': Layout(64, 256, 256, True)
    }[way]
    plan = apa_triton._Plan.of(layout)
    assert plan.way == getattr(apa_triton, way)
    for kernel in (apa_triton._forward, apa_triton._backward):
        signature, constants = {}, dict(
            kind=1, paper=False, way=plan.way, height=plan.block[0],
            width=plan.block[1])
        for name in kernel.arg_names:
            if name in constants:
                signature[name] = 'constexpr'
            elif not name.endswith('_ptr'):
                signature[name] = 'i32'
            else:
                single = name.startswith(('kappa', 'lambd', 'partial'))
                signature[name] = '*fp32' if single else f'*{dtype}'
        # What Triton finds out by itself: addresses and the row length.
        aligned = {(i, ): [['tt.divisibility', 16]]
                   for i, name in enumerate(kernel.arg_names)
                   if name.endswith('_ptr') or name == 'cols'}
        source = triton.compiler.ASTSource(
            kernel, signature,
            {k: v for k, v in constants.items() if k in signature}, aligned)
        target = triton.backends.compiler.GPUTarget('cuda', 80, 32)
        code = triton.compile(source, target=target).asm['ptx']
        # 16 bytes per access, as the design note counts on.
        assert 'ld.global.v4' in code and 'st.global.v4' in code


def test_image_sizes_share_kernels():
    from apa_mm.kernels import apa_triton
    blocks = {apa_triton._Plan.of(Layout(1, n, 1, False)).block
              for n in range(1, 5000, 7)}
    assert blocks == {(1, apa_triton.BLOCK)}
    for last in (False, True):
        blocks = {
            apa_triton._Plan.of(
                Layout(64, 1 if last else n, n if last else 8, last)).block
            for n in range(2, 5000)
        }
        assert len(blocks) <= 10
        assert all(h * w == apa_triton.BLOCK for h, w in blocks)


@pytest.mark.parametrize('has_triton, want', [(True, 'triton'),
                                              (False, 'eager')])
def test_default_of_a_gpu(has_triton, want, monkeypatch):
    class OnGPU(torch.Tensor):
        device = torch.device('cuda')

    monkeypatch.setattr(activation, 'HAS_TRITON', has_triton)
    assert activation.choose_backend(OnGPU()) == want


def test_cpu_tensors_go_to_the_eager_form_outside_of_the_interpreter():
    assert activation.choose_backend(torch.ones(2), 'triton') == 'eager'
