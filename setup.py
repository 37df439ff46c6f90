from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def read_version() -> str:
    """Read ``__version__`` without importing the package."""
    scope: dict = {}
    exec((ROOT / 'apa_mm' / 'version.py').read_text(), scope)
    return scope['__version__']


def read_requirements(name: str) -> list:
    """Return the requirement lines of ``requirements/<name>.txt``."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


setup(
    name='apa_mm',
    version=read_version(),
    description='Adaptive Parametric Activation for MMDetection and '
    'MMPretrain',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['apa_mm', 'apa_mm.*']),
    package_data={'apa_mm': ['py.typed', 'kernels/csrc/*']},
    python_requires='>=3.10',
    install_requires=read_requirements('runtime'),
    extras_require={
        name: read_requirements(name)
        for name in ('det', 'cls', 'analysis', 'tests')
    },
    zip_safe=False,
)
