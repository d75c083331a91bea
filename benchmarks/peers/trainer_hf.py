"""Train with transformers.Trainer on the documents of FOLDER/documents.arrow, from the weights in FOLDER/start.

    python trainer_hf.py FOLDER OUTPUT --steps 40 --batch 21 [--texts line|group] [--sparse]
    torchrun --nproc-per-node 2 trainer_hf.py …                                     --batch is each process's

FOLDER/options.json holds what ours trains with: mask ratio, optimizer, schedule. Writes OUTPUT/model.safetensors and
for each process OUTPUT/steps-RANK.json: [seconds since some moment, real tokens so far] after every step.

--texts line: one document is one example, padded to the longest of its batch, as `run_mlm --line_by_line` does. group:
documents one after the other, cut into rows of equal length, as `run_mlm` does without that flag: no padding, and every
token sees its neighbours' documents. --sparse: with ModernBERT's `sparse_prediction`, which is off by default.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    DataCollatorForLanguageModeling,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)


def tokenizer(specials: dict[str, int], size: int) -> PreTrainedTokenizerFast:
    """Make a tokenizer that the collator can ask for special ids and the number of ids."""
    known = {number: name for name, number in specials.items()}
    vocabulary = {known.get(number, f"#{number}"): number for number in range(size)}
    names = {f"{name.strip('[]').lower()}_token": name for name in specials}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(vocabulary, "[UNK]")), **names)


def examples(folder: Path, specials: list[int], length: int, texts: str) -> Dataset:
    """Read the documents, as they are or grouped, with the column that spares the collator asking the tokenizer."""
    documents = Dataset.from_file(str(folder / "documents.arrow"))
    if texts == "group":
        flat = list(itertools.chain.from_iterable(documents["input_ids"]))
        rows = [flat[start : start + length] for start in range(0, len(flat) - length + 1, length)]
        documents = Dataset.from_dict({"input_ids": rows})
    ids = set(specials)
    return documents.map(
        lambda row: {"special_tokens_mask": [int(token in ids) for token in row["input_ids"]]}, keep_in_memory=True
    )


class Clock(TrainerCallback):
    """Note when each step ended, and how many real tokens the collator had given out by then."""

    def __init__(self, collator: DataCollatorForLanguageModeling) -> None:
        self.collator, self.tokens, self.steps = collator, 0, []

    def collate(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate, and count."""
        self.tokens += sum(len(row["input_ids"]) for row in batch)
        return self.collator(batch)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.steps.append((time.perf_counter(), self.tokens))


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--texts", choices=("line", "group"), default="line")
    parser.add_argument("--sparse", action="store_true")
    args = parser.parse_args()
    options = json.loads((args.folder / "options.json").read_text())
    optim = options["optim"]
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    model = ModernBertForMaskedLM.from_pretrained(
        args.folder / "start", attn_implementation="sdpa", dtype=torch.float32, sparse_prediction=args.sparse
    )
    data = examples(args.folder, list(options["specials"].values()), options["length"], args.texts)
    collator = DataCollatorForLanguageModeling(
        tokenizer(options["specials"], model.config.vocab_size), mlm_probability=options["ratio"]
    )
    clock = Clock(collator)
    decay = {"num_decay_steps": options["decay_steps"], "warmup_type": "linear", "decay_type": "1-sqrt"}
    arguments = TrainingArguments(
        output_dir=str(args.output), max_steps=args.steps, per_device_train_batch_size=args.batch,
        learning_rate=optim["lr"], adam_beta1=optim["beta1"], adam_beta2=optim["beta2"], adam_epsilon=optim["eps"],
        weight_decay=optim["weight_decay"], max_grad_norm=optim["clip"], lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs=decay, warmup_steps=options["warmup_steps"], remove_unused_columns=False, use_cpu=True,
        save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True, seed=options["seed"],
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=clock.collate, callbacks=[clock])
    trainer.train()
    trainer.save_model(str(args.output))
    (args.output / f"steps-{arguments.process_index}.json").write_text(json.dumps(clock.steps))


if __name__ == "__main__":
    main()
