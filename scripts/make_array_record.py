"""Packs folders or .txt lists of images into ArrayRecord shards.

    python scripts/make_array_record.py data/LSDIR data/ffhq_10k.txt --out data/packed

Shards read faster than loose files from network disks and buckets. Images go in as they are;
damaged ones are named and left out. Give the output folder as a source to the training pipeline.
"""

from __future__ import annotations

import argparse
import sys

from omgsr_jax.data.sources import pack
from omgsr_jax.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="+", help="folders of images, .txt lists, images")
    parser.add_argument("--out", required=True, help="folder for the shards")
    parser.add_argument("--shard-mb", type=int, default=512, help="size of a shard (default 512)")
    args = parser.parse_args()
    try:
        summary = pack(
            args.sources,
            args.out,
            shard_bytes=args.shard_mb * 2**20,
            progress=_show_progress,
            notify=lambda text: print(text, file=sys.stderr),
        )
    except (OSError, InputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for message in summary.damaged:
        print(f"left out: {message}", file=sys.stderr)
    print(f"{summary.written} images in {len(summary.shards)} shards in {args.out}")
    return 1 if summary.damaged else 0


def _show_progress(done: int, total: int) -> None:
    if done % 1000 == 0 or done == total:
        print(f"{done} of {total} images", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
