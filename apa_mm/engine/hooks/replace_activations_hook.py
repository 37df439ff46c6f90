"""The name of a hook that is gone, for configs that still have it."""
from typing import Any

from mmengine.hooks import Hook

from apa_mm.registry import HOOKS

__all__ = ['ReplaceActivationsHook']


@HOOKS.register_module()
class ReplaceActivationsHook(Hook):
    """Refuse to be built; ``apa_mm.ReplacedActivations`` took its place.

    Raises:
        ValueError: Always; it says what to write instead.
    """

    def __init__(self, **options: Any) -> None:
        given = ''.join(f', {key}={value!r}' for key, value in options.items())
        raise ValueError(
            'apa_mm.ReplaceActivationsHook is gone; remove it from '
            "custom_hooks and set model=dict(_delete_=True, type='apa_mm."
            "ReplacedActivations', model={{_base_.model}}"
            f'{given}) in a child of the config, which builds the same model')
