"""Ask datatrove's filters about texts: `run_datatrove_filters.py INPUT.jsonl OUTPUT.jsonl [--chain]`.

INPUT: {"text": …} a line. Without --chain, each rule is asked alone, and OUTPUT has {rule: broken} a line (null where
the filter fails). With --chain, OUTPUT has {"seconds": s, "kept": n}: the four filters in a row with their defaults,
on one core, after a first text for what is loaded on use.
"""

import argparse
import json
import sys
import time
from multiprocessing import Pool
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4ParagraphFilter,
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

QUALITY = {
    "min_gopher_words": ("min_doc_words", 50),
    "max_gopher_words": ("max_doc_words", 100_000),
    "min_gopher_mean_word_length": ("min_avg_word_length", 3),
    "max_gopher_mean_word_length": ("max_avg_word_length", 10),
    "max_gopher_symbol_ratio": ("max_symbol_word_ratio", 0.1),
    "max_gopher_bullet_ratio": ("max_bullet_lines_ratio", 0.9),
    "max_gopher_end_ellipsis_ratio": ("max_ellipsis_lines_ratio", 0.3),
    "min_gopher_alpha_ratio": ("max_non_alpha_words_ratio", 0.8),
    "min_gopher_stop_words": ("min_stop_words", 2),
}
REPETITION = {
    "max_dup_line_frac": ("dup_line_frac", 0.3),
    "max_dup_para_frac": ("dup_para_frac", 0.3),
    "max_dup_line_char_frac": ("dup_line_char_frac", 0.2),
    "max_dup_para_char_frac": ("dup_para_char_frac", 0.2),
    **{f"max_top_{n}_gram": ("top_n_grams", ((n, f),)) for n, f in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{f"max_dup_{n}_gram": ("dup_n_grams", ((n, round(0.15 - 0.01 * (n - 5), 2)),)) for n in range(5, 11)},
}


def single_rules():
    """One filter for each rule, all its other rules off."""
    off = dict.fromkeys(key for key, _ in QUALITY.values())
    found = {name: GopherQualityFilter(**{**off, key: limit}) for name, (key, limit) in QUALITY.items()}
    off = {key: () if key.endswith("n_grams") else None for key, _ in REPETITION.values()}
    found |= {name: GopherRepetitionFilter(**{**off, key: limit}) for name, (key, limit) in REPETITION.items()}
    never = {"line_punct_thr": -1, "short_line_thr": 2, "char_duplicates_ratio": 2, "new_line_ratio": 1e9}
    fineweb = {
        "min_line_punct_ratio": ("line_punct_thr", 0.12),
        "max_short_line_ratio": ("short_line_thr", 0.67),
        "max_line_char_dup_ratio": ("char_duplicates_ratio", 0.01),
        "max_newline_ratio": ("new_line_ratio", 0.3),
    }
    found |= {name: FineWebQualityFilter(**{**never, key: limit}) for name, (key, limit) in fineweb.items()}
    page = {"min_num_sentences": -1, "filter_lorem_ipsum": False, "filter_curly_bracket": False}
    c4 = {
        "min_c4_sentences": {"min_num_sentences": 5},
        "max_c4_lorem_ipsum": {"filter_lorem_ipsum": True},
        "max_c4_curly_bracket": {"filter_curly_bracket": True},
    }
    found |= {name: C4QualityFilter(**{**page, **rule}) for name, rule in c4.items()}
    return found | {"min_c4_third_longest_line": C4ParagraphFilter()}


def broken(one, text):
    """Whether a filter removes a text; None where it fails."""
    try:
        result = one.filter(Document(text=text, id=""))
    except (ZeroDivisionError, ValueError, IndexError):
        return None
    return (result[0] if isinstance(result, tuple) else result) is False


RULES = {}


def start():
    RULES.update(single_rules())


def ask(text):
    return {name: broken(one, text) for name, one in RULES.items()}


def chain(texts):
    """Time the four filters in a row, each on what the one before kept; C4 rewrites the text, as it does in a chain."""
    filters = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(), FineWebQualityFilter()]
    for one in filters:
        one.filter(Document(text=texts[0], id=""))
    begin, kept = time.perf_counter(), 0
    for text in texts:
        document = Document(text=text, id="")
        try:
            kept += all(one.filter(document) is True for one in filters)
        except (ZeroDivisionError, ValueError, IndexError):
            continue
    return {"seconds": time.perf_counter() - begin, "kept": kept}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--chain", action="store_true")
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    with args.input.open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    with args.output.open("w", encoding="utf-8") as file:
        if args.chain:
            print(json.dumps(chain(texts)), file=file)
            return
        with Pool(args.cores, start) as pool:
            for answer in pool.imap(ask, texts, chunksize=50):
                print(json.dumps(answer), file=file)


if __name__ == "__main__":
    sys.exit(main())
