"""How far a long analysis has come."""
import sys
import time

__all__ = ['Progress']

#: Seconds between two lines, on a terminal and in a log.
PERIODS = (1, 15)


class Progress:
    """A line on standard error every now and then, and at the end.

    Args:
        title (str): What is being done.
        total (int): Images to do.
    """

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.begin = self.last = time.perf_counter()

    def show(self, done: int) -> None:
        """Say how many images are done and about how long the rest takes."""
        now = time.perf_counter()
        terminal = sys.stderr.isatty()
        if done < self.total and now - self.last < (PERIODS[not terminal]):
            return
        self.last = now
        left = (self.total - done) * (now - self.begin) / max(done, 1)
        rest = f'about {left:.0f} s left' if done < self.total else (
            f'{now - self.begin:.1f} s')
        end = '\r' if terminal and done < self.total else '\n'
        print(f'{self.title}: {done}/{self.total} images, {rest}   ',
              end=end, file=sys.stderr, flush=True)
