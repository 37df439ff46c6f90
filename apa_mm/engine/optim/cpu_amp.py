"""Mixed precision on a machine without an accelerator."""
from contextlib import ExitStack, contextmanager
from typing import Any, Iterator, Optional, Sequence

import torch
from mmengine.optim import OptimWrapper
from mmengine.utils import apply_to
from torch import Tensor, nn

from apa_mm.weights.load_check import unwrap


class CPUAmpOptimWrapper(OptimWrapper):
    """Train in bfloat16 on the CPU, where AmpOptimWrapper refuses to work.

    bfloat16 has float32's range, so that no loss scaling is needed. mmcv's
    RoIAlign and NMS have float32 kernels only: a detector autocasts its
    backbone and neck, and their outputs are handed on in float32.

    Args:
        modules (Sequence[str], optional): Parts of the model to run in
            bfloat16, such as ``['backbone', 'neck']``; those it lacks are
            passed over. None for the whole model.
        **kwargs: Of :class:`mmengine.optim.OptimWrapper`.

    Raises:
        ValueError: If the model has none of ``modules`` (when it is run).
    """

    def __init__(self, modules: Optional[Sequence[str]] = None,
                 **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.modules = modules

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast while the block runs."""
        with super().optim_context(model), ExitStack() as stack:
            if self.modules is None:
                stack.enter_context(_autocast())
                yield
                return
            inner = unwrap(model)
            named = (getattr(inner, name, None) for name in self.modules)
            parts = [part for part in named if isinstance(part, nn.Module)]
            if not parts:
                raise ValueError(
                    f'{type(inner).__name__} has none of the parts '
                    f'{list(self.modules)} to run in bfloat16; set '
                    'optim_wrapper.modules to names of its parts')
            for part in parts:
                for handle in _autocast_part(part):
                    stack.callback(handle.remove)
            yield


def _autocast() -> torch.autocast:
    return torch.autocast('cpu', dtype=torch.bfloat16)


def _autocast_part(part: nn.Module) -> list:
    """Run ``part`` under autocast, its outputs going on in float32."""
    contexts = []

    def enter(module: nn.Module, args: tuple) -> None:
        contexts.append(_autocast())
        contexts[-1].__enter__()

    def leave(module: nn.Module, args: tuple, output: Any) -> Any:
        contexts.pop().__exit__(None, None, None)
        return apply_to(
            output, lambda value: isinstance(value, Tensor)
            and value.dtype == torch.bfloat16, Tensor.float)

    return [part.register_forward_pre_hook(enter),
            part.register_forward_hook(leave, always_call=True)]
