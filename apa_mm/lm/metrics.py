"""Validation loss and HellaSwag as mmengine metrics."""
from typing import Any, Dict, List, Sequence

import numpy as np
from mmengine.evaluator import BaseMetric

from apa_mm.registry import METRICS


class _SequenceMetric(BaseMetric):
    """Keeps what :class:`~apa_mm.lm.gpt2.GPT2` says of every sequence.

    One result per sequence, of whatever set: mmengine counts them to drop
    those that fill up the last batch of several ranks.
    """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep the sums."""
        self.results += data_samples


@METRICS.register_module()
class TokenLoss(_SequenceMetric):
    """Mean loss of a token, in nats, over :class:`TokenShards`."""

    default_prefix = 'tokens'

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Return 'loss'; NaN without tokens."""
        own = [sample for sample in results if sample['label'] < 0]
        count = sum(sample['count'] for sample in own)
        total = sum(sample['nll'] for sample in own)
        return dict(loss=total / count if count else float('nan'))


@METRICS.register_module()
class HellaSwagAccuracy(_SequenceMetric):
    """Share of items, in per cent, whose right ending is the likeliest.

    An ending's loss is the mean over its tokens for 'acc_norm', the figure of
    Table 15, and the sum for 'acc'. Of equal endings the first counts.
    """

    default_prefix = 'hellaswag'

    def compute_metrics(self, results: List[dict]) -> Dict[str, float]:
        """Return 'acc_norm' and 'acc'; NaN without items."""
        own = sorted((sample for sample in results if sample['label'] >= 0),
                     key=lambda sample: (sample['item'], sample['ending']))
        # Each (items, 4)
        nll, count, label = (
            np.array([sample[key] for sample in own]).reshape(-1, 4)
            for key in ('nll', 'count', 'label'))
        return {name: 100 * float((scores.argmin(1) == label[:, 0]).mean())
                if own else float('nan')
                for name, scores in (('acc_norm', nll / count), ('acc', nll))}
