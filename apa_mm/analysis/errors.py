"""Input that cannot be analysed."""
from typing import Union

import numpy as np
import torch
from torch import Tensor


class AnalysisError(ValueError):
    """What cannot be analysed, what was expected, and how to mend it."""


def check_finite(values: Union[np.ndarray, Tensor], what: str) -> None:
    """Raise AnalysisError if one of the values, ``what``, is not finite."""
    values = torch.as_tensor(values)
    if broken := int((~values.isfinite()).sum()):
        raise AnalysisError(
            f'{broken} of {values.numel()} {what} are NaN or infinite; look '
            'at the weights with tools/inspect_checkpoint.py')
