import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
EXTRAS = ('det', 'cls', 'official', 'onedl', 'lm', 'analysis', 'tests')
#: What needs the checkout; users of the wheel get every other tool.
NOT_CARRIED = ('demo*', 'make_digits_lvis.py', 'setup_env.sh', 'test.sh',
               'bench*', 'build_mmcv.py', 'pictures', 'README.md')


def read_version() -> str:
    """Read ``__version__`` without importing the package."""
    scope: dict = {}
    exec((ROOT / 'apa_mm' / 'version.py').read_text(), scope)
    return scope['__version__']


def read_requirements(name: str) -> list:
    """Return the requirement lines of ``requirements/<name>.txt``."""
    lines = (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


class BuildWithMIM(build_py):
    """Carry configs and tools in ``apa_mm/.mim``, where mim looks for them."""

    def run(self) -> None:
        """Copy them, but not for an editable install, which has them."""
        super().run()
        if getattr(self, 'editable_mode', False):
            return
        target = Path(self.build_lib, 'apa_mm', '.mim')
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(
            ROOT / 'configs', target / 'configs',
            ignore=shutil.ignore_patterns('demo', '__pycache__'))
        shutil.copytree(
            ROOT / 'tools', target / 'tools',
            ignore=shutil.ignore_patterns('__pycache__', *NOT_CARRIED))
        shutil.copy(ROOT / 'model-index.yml', target)


setup(
    name='apa_mm',
    version=read_version(),
    description='Adaptive Parametric Activation for MMDetection and '
    'MMPretrain',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    cmdclass={'build_py': BuildWithMIM},
    packages=find_packages(include=['apa_mm', 'apa_mm.*']),
    package_data={'apa_mm': ['py.typed', '*/csrc/*']},
    python_requires='>=3.10',
    install_requires=read_requirements('runtime'),
    extras_require={name: read_requirements(name) for name in EXTRAS},
    zip_safe=False,
)
