"""Full-text peers. Each is a process of its own that builds an index of lines once (kept in the cache)
and then answers all queries whenever asked: "any" or "all" on its stdin, "CPU-nanoseconds hits" on its
stdout. Words come ready-made, separated by spaces, so that every engine indexes the same terms.

    /usr/bin/python3 bench/text_peers.py ENGINE INDEX DOCUMENTS QUERIES

runs one of the Python ones (xapian, fts5, tantivy, bm25s).
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

JARS = [Path("/usr/share/java") / f"{name}.jar" for name in ("lucene-core-8.7.0", "lucene-analyzers-common-8.7.0")]
SYSTEM_PYTHON = "/usr/bin/python3"  # Debian's xapian belongs to Debian's Python


def lines_of(path):
    with open(path, encoding="utf-8") as f:
        return [line.rstrip("\n") for line in f]


# ---- engines: build(index, documents), then search(index, queries) -> ask(join) -> hits ----

def xapian_build(index, documents):
    import xapian
    db = xapian.WritableDatabase(str(index / "db"), xapian.DB_CREATE_OR_OVERWRITE)
    for line in documents:
        doc = xapian.Document()
        for word in line.split():
            doc.add_term(word)
        db.add_document(doc)
    db.commit()
    db.close()
    fresh = xapian.Database(str(index / "db"))
    fresh.compact(str(index / "compact"))
    fresh.close()
    shutil.rmtree(index / "db")


def xapian_search(index, queries):
    import xapian
    db = xapian.Database(str(index / "compact"))
    enquire = xapian.Enquire(db)
    made = {join: [xapian.Query(xapian.Query.OP_AND if join == "all" else xapian.Query.OP_OR, q.split())
                   for q in queries] for join in ("any", "all")}

    def ask(join):
        hits = 0
        for q in made[join]:
            enquire.set_query(q)
            hits += enquire.get_mset(0, 10).size()
        return hits
    return ask


def fts5_build(index, documents, detail="column"):
    import sqlite3
    db = sqlite3.connect(index / "db")
    db.execute(f"CREATE VIRTUAL TABLE t USING fts5(x, content='', detail={detail})")
    db.executemany("INSERT INTO t(rowid, x) VALUES (?, ?)", enumerate(documents))
    db.execute("INSERT INTO t(t) VALUES ('optimize')")
    db.commit()
    db.execute("VACUUM")
    db.close()


def fts5_search(index, queries):
    import sqlite3
    db = sqlite3.connect(index / "db")
    db.execute("PRAGMA mmap_size = 1073741824")

    def ask(join):
        hits = 0
        for q in queries:
            words = (" AND " if join == "all" else " OR ").join(f'"{w}"' for w in q.split())
            hits += len(db.execute("SELECT rowid FROM t WHERE t MATCH ? ORDER BY rank LIMIT 10", (words,)).fetchall())
        return hits
    return ask


def tantivy_build(index, documents):
    import tantivy
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("t", stored=False, tokenizer_name="whitespace", index_option="freq")
    (index / "db").mkdir()
    ix = tantivy.Index(builder.build(), path=str(index / "db"))
    writer = ix.writer(heap_size=512 << 20, num_threads=1)
    for line in documents:
        doc = tantivy.Document()
        doc.add_text("t", line)
        writer.add_document(doc)
    writer.commit()
    writer.wait_merging_threads()


def tantivy_search(index, queries):
    import tantivy
    ix = tantivy.Index.open(str(index / "db"))
    searcher = ix.searcher()
    made = {}
    for join, occur in (("any", tantivy.Occur.Should), ("all", tantivy.Occur.Must)):
        made[join] = [tantivy.Query.boolean_query([(occur, tantivy.Query.term_query(ix.schema, "t", w, "freq"))
                                                   for w in q.split()]) for q in queries]
    return lambda join: sum(len(searcher.search(q, 10, count=False).hits) for q in made[join])


def bm25s_build(index, documents):
    import bm25s
    words = {}
    ids = [[words.setdefault(w, len(words)) for w in line.split()] for line in documents]
    model = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
    model.index((ids, words), show_progress=False)
    model.save(str(index / "db"))


def bm25s_search(index, queries):
    import bm25s
    model = bm25s.BM25.load(str(index / "db"), mmap=False)
    tokens = [[w for w in q.split()] for q in queries]

    def ask(join):
        if join == "all":
            return 0  # it has no AND
        return sum(len(model.retrieve([t], k=10, show_progress=False, n_threads=0)[0][0]) for t in tokens)
    return ask


ENGINES = {"xapian": (xapian_build, xapian_search), "fts5": (fts5_build, fts5_search),
           "fts5-full": (lambda i, d: fts5_build(i, d, "full"), fts5_search),
           "tantivy": (tantivy_build, tantivy_search), "bm25s": (bm25s_build, bm25s_search)}


def serve(engine, index, documents, queries):
    build, search = ENGINES[engine]
    index = Path(index)
    if not (index / "done").exists():
        shutil.rmtree(index, ignore_errors=True)
        index.mkdir(parents=True)
        lines = lines_of(documents)
        start = time.process_time()
        build(index, lines)
        (index / "done").write_text(json.dumps({"build_cpu_seconds": time.process_time() - start}))
        del lines
    ask = search(index, lines_of(queries))
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.process_time_ns()
        hits = ask(line.strip())
        print(time.process_time_ns() - start, hits, flush=True)


# ---- the other end ----

class Peer:
    def __init__(self, engine, cache, documents, queries):
        self.engine, self.index = engine, Path(cache) / f"text-{engine}"
        self.index.mkdir(parents=True, exist_ok=True)
        here = Path(__file__).resolve().parent
        python = SYSTEM_PYTHON if engine == "xapian" else sys.executable
        command = [python, str(here / "text_peers.py"), engine]
        if engine == "lucene":
            command = ["java", "-Xmx3g", "-cp", ":".join(map(str, JARS)), str(here / "LuceneText.java")]
        self.process = subprocess.Popen([*command, str(self.index), str(documents), str(queries)], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self.process.stdout.readline().strip() != "ready":
            raise RuntimeError(f"{engine} did not start")

    def ask(self, join):
        """CPU seconds for all queries, and how many hits they had."""
        self.process.stdin.write(join + "\n")
        self.process.stdin.flush()
        nanoseconds, hits = self.process.stdout.readline().split()
        return int(nanoseconds) / 1e9, int(hits)

    def size(self):
        return sum(f.stat().st_size for f in self.index.rglob("*") if f.is_file() and f.name != "done")

    def close(self):
        self.process.stdin.close()
        self.process.wait()


if __name__ == "__main__":
    serve(*sys.argv[1:])
