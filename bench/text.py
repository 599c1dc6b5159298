"""Full text: speed, size and ranking of peri_text beside Xapian, Lucene 8, SQLite FTS5, tantivy and bm25s.

Speed and size are on imdb-chunks.txt.gz, chunks of up to 50 words of film reviews. One chunk in 464 is held
out; a query is 2 to 5 distinct words of a held-out chunk that the others know, drawn with a fixed seed. Words are
runs of [a-z0-9] in small letters, made ready before any engine sees them, so that all have the same terms; no
stemming, no stop words. Every engine answers all queries, ten hits each, one thread, CPU time, in turns; a figure
is the median of the rounds. FTS5 and bm25s, which score every match, get the first 20 queries and one round.
"""

import collections
import gzip
import json
import math
import random
import re

import numpy as np

import bench_common as common
from text_library import IdSet, Text, slices
from text_peers import Peer

QUERIES, SLOW_QUERIES, HELD_OUT_EVERY = 400, 20, 464
SLOW = ("fts5", "fts5-full", "bm25s")
PEERS = ("xapian", "lucene", "tantivy", "bm25s", "fts5", "fts5-full")
MUST_ANY = {"xapian": 5, "lucene": 3, "fts5": 100}
MUST_ALL = {"xapian": 1, "lucene": 0.7, "fts5": 15}
# BM25 without stemming (k1 0.9, b 0.4, stop words), from the README of the data
BASELINE = {"scifact-test": 0.6627, "scifact-train": 0.6647, "cranfield": 0.3478, "cisi": 0.3272, "npl": 0.3807}


def prepare(folder, cache):
    """Documents and queries as files of lines, made once."""
    documents, queries = cache / "text-documents.txt", cache / "text-queries.txt"
    if not queries.exists():
        cache.mkdir(parents=True, exist_ok=True)
        word = re.compile(r"[a-z0-9]+")
        with gzip.open(folder / "imdb-chunks.txt.gz", "rt") as f:
            chunks = [word.findall(line.lower()) for line in f]
        kept = [c for i, c in enumerate(chunks) if i % HELD_OUT_EVERY]
        known, rng, drawn = {w for c in kept for w in c}, random.Random(1), []
        for chunk in chunks[::HELD_OUT_EVERY]:
            words, n = sorted(set(chunk) & known), rng.randint(2, 5)
            if len(words) >= n:
                drawn.append(" ".join(rng.sample(words, n)))
        rng.shuffle(drawn)
        documents.write_text("\n".join(" ".join(c) for c in kept) + "\n")
        queries.write_text("\n".join(drawn[:QUERIES]) + "\n")
    (cache / "text-queries-slow.txt").write_text("\n".join(queries.read_text().splitlines()[:SLOW_QUERIES]) + "\n")
    return documents, queries


def seconds(index, queries, rounds, **how):
    """CPU seconds of all queries, the median of some rounds."""
    taken = []
    for _ in range(rounds):
        with common.Timed() as t:
            index.search(queries, **how)
        taken.append(t.cpu)
    return common.median(taken)


def start_peers(cache, documents, queries, say):
    running = {}
    for name in PEERS:
        asked = cache / "text-queries-slow.txt" if name in SLOW else queries
        try:
            running[name] = Peer(name, cache, documents, asked)
            say(f"text: {name} is there")
        except (OSError, RuntimeError) as problem:
            say(f"text: without {name}: {problem}")
    return running


def speed(library, folder, options, say):
    cache = common.CACHE
    documents, query_file = prepare(folder, cache)
    texts, lines = documents.read_text().splitlines(), query_file.read_text().splitlines()
    peers = start_peers(cache, documents, query_file, say)
    path, result = cache / "text.peri", {"documents": len(texts), "queries": len(lines), "sizes": {}, "any": {}, "all": {}}
    for positions in (True, False):
        index = Text.create(library, positions=positions)
        with common.Timed() as t:
            index.put(texts)
        index.maintain()
        index.save(path)
        result["sizes"]["perigee, positions" if positions else "perigee"] = path.stat().st_size
        result["documents_per_second"] = len(texts) / t.cpu
        index.close()
    say("text: built")
    index, queries = Text.open(library, path), slices(lines)
    for name, peer in peers.items():
        result["sizes"][name] = peer.size()
    for join in ("any", "all"):
        taken = collections.defaultdict(list)
        for round_ in range(options.rounds + 1):
            with common.Timed() as t:
                index.search(queries, join_and=join == "all")
            taken["perigee"].append(t.cpu / len(lines))
            for name, peer in peers.items():
                slow = name in SLOW
                if (slow and round_ > 1) or (join == "all" and name == "bm25s"):
                    continue  # bm25s has no AND
                taken[name].append(peer.ask(join)[0] / (SLOW_QUERIES if slow else len(lines)))
        for name, each in taken.items():
            result[join][name] = common.median(each[1:]) * 1e6
        say(f"text: {join}: " + ", ".join(f"{n} {v:.0f} us" for n, v in result[join].items()))
    for peer in peers.values():
        peer.close()
    index.close()
    return result


def upkeep(library, folder, options, say):
    """Deleting half and merging against a fresh build; filters that keep one document in a hundred."""
    documents, query_file = prepare(folder, common.CACHE)
    texts, queries = documents.read_text().splitlines(), slices(query_file.read_text().splitlines())
    halved, fresh, sizes = Text.create(library), Text.create(library), []
    halved.put(texts)
    unfiltered = seconds(halved, queries, options.rounds)
    filters, few = {}, slices(query_file.read_text().splitlines()[:20])
    for name, ids in (("neighbours", np.arange(100000, 100000 + len(texts) // 100)),
                      ("scattered", np.random.default_rng(1).choice(len(texts), len(texts) // 100, replace=False))):
        allow = IdSet(library, ids)
        hits, counts = halved.search(queries, allow=allow)
        deep, deep_counts = halved.search(few, k=len(texts))
        kept = set(int(i) for i in ids)
        exact = all([int(i) for i in hits["id"][q][:counts[q]]] ==
                    [int(i) for i in deep["id"][q][:deep_counts[q]] if int(i) in kept][:10] for q in range(20))
        filters[name] = {"ratio": seconds(halved, queries, options.rounds, allow=allow) / unfiltered, "exact": exact}
        allow.close()
    halved.remove(range(0, len(texts), 2))
    halved.maintain()
    fresh.put(texts[1::2], ids=np.arange(1, len(texts), 2))
    fresh.maintain()
    for i, index in enumerate((halved, fresh)):
        path = common.CACHE / f"text-half-{i}.peri"
        index.save(path)
        sizes.append(path.stat().st_size)
    (a, n), (b, m) = halved.search(queries), fresh.search(queries)
    result = {"size": sizes[0] / sizes[1], "same": bool((n == m).all() and (a == b).all()), "filters": filters}
    pairs = [(seconds(halved, queries, 1), seconds(fresh, queries, 1)) for _ in range(options.rounds)]
    result["latency"] = common.median(x for x, _ in pairs) / common.median(y for _, y in pairs)
    halved.close()
    fresh.close()
    say(f"text: after deleting half: size {result['size']:.3f}, latency {result['latency']:.2f}, "
        f"{'same' if result['same'] else 'OTHER'} answers")
    return result


def load_judged(folder, name):
    corpus = "scifact-test" if name.startswith("scifact") else name
    with gzip.open(folder / corpus / "corpus.jsonl.gz", "rt") as f:
        documents = [json.loads(line) for line in f]
    queries = {q["_id"]: q["text"] for q in map(json.loads, (folder / name / "queries.jsonl").read_text().splitlines())}
    judged = collections.defaultdict(dict)
    for line in (folder / name / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        if int(grade) > 0:
            judged[query][document] = int(grade)
    return documents, queries, judged


def ndcg(index, documents, queries, judged):
    asked = [q for q in queries if judged.get(q)]
    hits, counts = index.search(slices([queries[q] for q in asked]), k=10)
    total = 0.0
    for i, q in enumerate(asked):
        found = [documents[int(d)]["_id"] for d in hits["id"][i][:counts[i]]]
        gain = lambda grade, rank: (2 ** grade - 1) / math.log2(rank + 2)
        ideal = sum(gain(g, r) for r, g in enumerate(sorted(judged[q].values(), reverse=True)[:10]))
        total += sum(gain(judged[q].get(d, 0), r) for r, d in enumerate(found)) / ideal
    return total / len(asked)


def quality(library, folder, say):
    result = {}
    for name, baseline in BASELINE.items():
        documents, queries, judged = load_judged(folder, name)
        texts = [d.get("title", "") + " " + d["text"] for d in documents]
        row = {"baseline": baseline}
        for label, config in (("plain", {"k1": 0.9, "b": 0.4, "stop": "english"}),
                              ("stemmed", {"k1": 0.9, "b": 0.4, "stop": "english", "language": "english"}),
                              ("stemmed, defaults", {"stop": "english", "language": "english"})):
            index = Text.create(library, **config)
            index.put(texts)
            row[label] = ndcg(index, documents, queries, judged)
            index.close()
        result[name] = row
    say("text: nDCG@10 measured")
    return result


def measure(library, options, say):
    folder = options.data.parent / "text"
    if not (folder / "imdb-chunks.txt.gz").exists():
        say(f"text: no data in {folder}")
        return None
    return {"speed": speed(library, folder, options, say), "upkeep": upkeep(library, folder, options, say),
            "quality": quality(library, folder, say)}


def table(results):
    if not results:
        return "no data"
    s, u = results["speed"], results["upkeep"]
    lines = [f"{s['documents']:,} chunks, {s['queries']} queries; perigee puts {s['documents_per_second']:,.0f} chunks/s.", "",
             "| engine | OR top 10, us | perigee is faster by (must) | AND top 10, us | perigee is faster by (must) | index, MB |",
             "|---|---|---|---|---|---|"]
    for name in ["perigee", *[p for p in PEERS if p in s["any"]]]:
        row = [name]
        for join, must in (("any", MUST_ANY), ("all", MUST_ALL)):
            us = s[join].get(name)
            row.append(f"{us:,.0f}" if us else "-")
            factor = us / s[join]["perigee"] if us else 0
            row.append("" if name == "perigee" or not us else f"{factor:,.1f}x" + (f" ({must[name]}x)" if name in must else ""))
        sizes = f"{s['sizes'][name] / 1e6:.1f}"
        if name == "perigee":
            sizes += f", with positions {s['sizes']['perigee, positions'] / 1e6:.1f}"
        lines.append("| " + " | ".join([*row, sizes]) + " |")
    lines += ["", "fts5 is `detail=column`, fts5-full `detail=full`, both contentless and optimised; bm25s keeps scores ready-made.",
              "", f"After deleting half and merging, against a fresh build: size {u['size']:.3f}x, latency {u['latency']:.2f}x, "
              f"answers {'identical' if u['same'] else 'DIFFERENT'}. A filter that keeps one document in a hundred: "
              + ", ".join(f"{n} {f['ratio']:.2f}x the unfiltered latency, {'exact' if f['exact'] else 'WRONG'}"
                          for n, f in u["filters"].items()) + ".",
              "", "| nDCG@10 | BM25 baseline | same parameters | stemmed | stemmed, k1 1.2, b 0.75 |", "|---|---|---|---|---|"]
    for name, q in results["quality"].items():
        lines.append(f"| {name} | {q['baseline']:.4f} | {q['plain']:.4f} | {q['stemmed']:.4f} | {q['stemmed, defaults']:.4f} |")
    return "\n".join(lines)
