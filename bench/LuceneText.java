// Lucene 8 as a peer of bench/text.py: builds an index of lines, then answers queries on request.
//
//     java -cp lucene-core.jar:lucene-analyzers-common.jar LuceneText.java INDEX DOCUMENTS QUERIES
//
// DOCUMENTS and QUERIES hold one text a line, words separated by single spaces. Each line "any" or
// "all" on stdin asks for all queries, joined by OR or AND; the answer is one line: CPU nanoseconds,
// then the number of hits of all queries.
import java.io.*;
import java.lang.management.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import org.apache.lucene.analysis.core.WhitespaceAnalyzer;
import org.apache.lucene.document.*;
import org.apache.lucene.index.*;
import org.apache.lucene.search.*;
import org.apache.lucene.store.*;

public class LuceneText {
    static void build(Path index, Path documents) throws IOException {
        try (Directory dir = FSDirectory.open(index);
             IndexWriter w = new IndexWriter(dir, new IndexWriterConfig(new WhitespaceAnalyzer())
                                                      .setRAMBufferSizeMB(512));
             BufferedReader in = Files.newBufferedReader(documents, StandardCharsets.UTF_8)) {
            FieldType type = new FieldType();
            type.setTokenized(true);
            type.setIndexOptions(IndexOptions.DOCS_AND_FREQS);
            type.freeze();
            for (String line; (line = in.readLine()) != null;) {
                Document d = new Document();
                d.add(new Field("t", line, type));
                w.addDocument(d);
            }
            w.forceMerge(1);
        }
    }

    static Query query(String line, boolean all) {
        BooleanQuery.Builder b = new BooleanQuery.Builder();
        for (String word : line.split(" "))
            b.add(new TermQuery(new Term("t", word)), all ? BooleanClause.Occur.MUST : BooleanClause.Occur.SHOULD);
        return b.build();
    }

    public static void main(String[] args) throws Exception {
        Path index = Paths.get(args[0]);
        if (!Files.exists(index.resolve("done"))) {
            build(index, Paths.get(args[1]));
            Files.createFile(index.resolve("done"));
        }
        List<String> lines = Files.readAllLines(Paths.get(args[2]), StandardCharsets.UTF_8);
        IndexReader reader = DirectoryReader.open(MMapDirectory.open(index));
        IndexSearcher searcher = new IndexSearcher(reader);
        searcher.setQueryCache(null);
        ThreadMXBean clock = ManagementFactory.getThreadMXBean();
        System.out.println("ready");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String ask; (ask = in.readLine()) != null;) {
            long hits = 0, start = clock.getCurrentThreadCpuTime();
            for (String line : lines)
                hits += searcher.search(query(line, ask.equals("all")), 10).scoreDocs.length;
            System.out.println(clock.getCurrentThreadCpuTime() - start + " " + hits);
        }
    }
}
