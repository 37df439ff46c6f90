"""GPT-2 of transformers as a model of mmengine."""
from typing import List, Optional, Union

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from apa_mm.registry import MODELS

from .tokenizers import import_extra


@MODELS.register_module()
class GPT2(BaseModel):
    """transformers' GPT-2 with its starting weights; nothing is downloaded.

    ``apa_mm.ReplacedActivations`` puts AGLU into it.

    Args:
        config (dict): Arguments of ``transformers.GPT2Config``.
        data_preprocessor, init_cfg: Of :class:`mmengine.model.BaseModel`.

    Raises:
        ImportError: If transformers is not installed.
    """

    def __init__(self, config: dict, data_preprocessor: Optional[dict] = None,
                 init_cfg: Optional[dict] = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        library = import_extra('transformers')
        self.gpt2 = library.GPT2LMHeadModel(library.GPT2Config(**config))

    def forward(self, tokens: List[Tensor], first: Optional[List[int]] = None,
                mode: str = 'tensor',
                **others: list) -> Union[Tensor, dict, List[dict]]:
        """Score every token by those before it.

        ``tokens`` are N int64 tensors of shape (L,), of any lengths, the
        longest at most one token more than GPT-2's positions; ``first`` is
        the first token of each that counts, 1 or more, by default 1.

        Returns:
            Tensor | dict | list[dict]: For the mode 'tensor' logits (N, L -
            1, V); for 'loss' the mean of a counted token; for 'predict' of
            each sequence 'nll', the sum over its counted tokens in nats,
            their number 'count', and ``others``, lists of N.
        """
        batch = pad_sequence(tokens, batch_first=True)  # (N, L)
        logits = self.gpt2(batch[:, :-1], use_cache=False).logits
        if mode == 'tensor':
            return logits
        # (N, V, L - 1) against (N, L - 1)
        nll = F.cross_entropy(logits.float().transpose(1, 2), batch[:, 1:],
                              reduction='none')
        place = torch.arange(1, batch.shape[1])
        counted = torch.stack([
            (place >= start) & (place < len(row)) for start, row in zip(
                first or [1] * len(tokens), tokens, strict=True)])
        sums = (nll * counted.to(nll)).sum(1)
        if mode == 'loss':
            return dict(loss=sums.sum() / counted.sum().item())
        others.update(nll=sums.tolist(), count=counted.sum(1).tolist())
        return [dict(zip(others, row, strict=True))
                for row in zip(*others.values(), strict=True)]
