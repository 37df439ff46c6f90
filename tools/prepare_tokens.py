"""Write token shards for configs/lm from a folder of .txt or .jsonl files."""
import argparse

from apa_mm.lm.shards import read_texts, write_shards
from apa_mm.lm.tokenizers import build_tokenizer
from apa_mm.preflight.job import InputError


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('texts', help='folder with .txt or .jsonl files')
    parser.add_argument('out', help='folder to write, which must not exist')
    parser.add_argument(
        '--tokenizer', choices=['tiktoken', 'files', 'bytes'],
        default='tiktoken', help="GPT-2's by tiktoken (downloads it once) or "
        'from its two files, or bytes')
    parser.add_argument('--vocab', help='vocab.json, for --tokenizer files')
    parser.add_argument('--merges', help='merges.txt, for --tokenizer files')
    parser.add_argument('--shard-size', type=int, default=10**8,
                        help='tokens of a training shard')
    parser.add_argument('--val-tokens', type=int, default=10**8,
                        help='tokens of the first shard, for validation')
    parser.add_argument('--processes', type=int, default=1)
    return parser.parse_args()


if __name__ == '__main__':
    args = parse_args()
    try:
        tokenizer = build_tokenizer(args.tokenizer, args.vocab, args.merges)
        counts = write_shards(
            read_texts(args.texts), args.out, tokenizer, args.shard_size,
            args.val_tokens, args.processes)
        print(f'{args.out}: {len(counts)} shards, {sum(counts):,} tokens, '
              f'{counts[0]:,} of them for validation; vocabulary '
              f'{tokenizer.size:,}')
    except (InputError, ImportError) as error:
        raise SystemExit(f'error: {error}') from None
