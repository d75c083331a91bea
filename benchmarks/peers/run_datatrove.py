"""Deduplicate with the four MinHash stages of datatrove: its defaults (14 × 8 bands, 5-grams, xxhash64, English).

One task per part for reading and filtering, one per bucket between them, one for clustering; `--cores` workers. The
survivors are written uncompressed.
"""

from __future__ import annotations

from common import BANDS, ROWS, SHINGLE, arguments, parts
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter


def main() -> None:
    """Run the stages one after the other."""
    args = arguments(__doc__)
    config = MinhashConfig(n_grams=SHINGLE, num_buckets=BANDS, hashes_per_bucket=ROWS)
    reader = JsonlReader(str(args.input), glob_pattern="part-*.jsonl")
    signatures, buckets, remove = (str(args.output / name) for name in ("signatures", "buckets", "remove"))
    # tasks must be the same in the first and the last stage: removal is by position in the task's files
    tasks = len(parts(args.input))
    stages = [
        (tasks, [reader, MinhashDedupSignature(output_folder=signatures, config=config)]),
        (BANDS, [MinhashDedupBuckets(input_folder=signatures, output_folder=buckets, config=config)]),
        (1, [MinhashDedupCluster(input_folder=buckets, output_folder=remove, config=config)]),
        (
            tasks,
            [
                reader,
                MinhashDedupFilter(input_folder=remove),
                JsonlWriter(str(args.output / "kept"), compression=None),
            ],
        ),
    ]
    for number, (count, pipeline) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline=pipeline,
            tasks=count,
            workers=min(args.cores, count),
            logging_dir=str(args.output / "logs" / str(number)),
        ).run()


if __name__ == "__main__":
    main()
